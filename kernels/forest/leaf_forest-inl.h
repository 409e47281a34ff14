// Leaf forests on vectors; specification: leaf_forest_scalar.cpp.
//
// Every token walks its trees (leaf_walk-inl.h); then, tree by tree, tokens are counted into leaves so that a
// leaf's rows are loaded once for all its tokens, and each leaf is two small products (panel-inl.h) over
// tokens where they lie. The first tree's products hold the shared neurons too: they write the same block of
// activations, and the second product's sums run over both without leaving registers.
#pragma once

#include "kernels/activation/activation-inl.h"
#include "kernels/dense/panel-inl.h"
#include "kernels/forest/leaf_round-inl.h"
#include "kernels/forest/leaf_walk-inl.h"

namespace espalier {
namespace {

// The first product on a block of tokens: activations[r, c] = x[token r] U + bias, float32.
template <class Arch, TensorType type>
struct UpRows {
    using V = Floats<Arch>;
    using Sum = typename PanelOps<Arch, type>::Sum;
    using Register = typename PanelOps<Arch, type>::Register;

    const std::byte* x;
    size_t x_bytes;  // of a row
    const uint32_t* tokens;
    const int32_t* x_sum;  // s8 alone reads it, and both scales
    const float *x_scale, *scale;
    const float* bias;
    float* activations;
    size_t stride;

    [[gnu::always_inline]] const std::byte* a(size_t r) const { return x + tokens[r] * x_bytes; }
    // Behind the block's rows come those of the next, or of the next leaf.
    [[gnu::always_inline]] const std::byte* next(size_t r, size_t) const { return a(r); }
    [[gnu::always_inline]] size_t next_bytes(size_t) const { return x_bytes; }

    template <size_t height, size_t width>
    [[gnu::always_inline]] void start(size_t row, size_t c, Register (&sum)[height][width]) const {
        start_sums<Arch, type>(
            bias + c, [&](size_t r) __attribute__((always_inline)) { return x_sum[tokens[row + r]]; }, sum);
    }
    template <size_t height, size_t width>
    [[gnu::always_inline]] void finish(size_t row, size_t c, const Register (&sum)[height][width]) const {
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const size_t at = c + v * lanes<Arch>;
            if constexpr (type == TensorType::s8) {
                const V scales = V::load_unaligned(scale + at), start = V::load_unaligned(bias + at);
#pragma GCC unroll 8
                for (size_t r = 0; r < height; ++r)
                    xsimd::fma(xsimd::to_float(Sum(sum[r][v])), V(x_scale[tokens[row + r]]) * scales, start)
                        .store_unaligned(activations + (row + r) * stride + at);
            } else {
#pragma GCC unroll 8
                for (size_t r = 0; r < height; ++r)
                    Sum(sum[r][v]).store_unaligned(activations + (row + r) * stride + at);
            }
        }
    }
};

// The second: y[token r, c] (+)= activations D + bias.
template <class Arch, TensorType type>
struct DownRows {
    using V = Floats<Arch>;
    using Sum = typename PanelOps<Arch, type>::Sum;
    using Register = typename PanelOps<Arch, type>::Register;
    static constexpr size_t w = lanes<Arch>;

    const std::byte* activations;
    size_t activation_bytes;  // of a row
    const uint32_t* tokens;
    size_t count;               // of tokens
    const int32_t* sum_of_row;  // s8 alone reads it, and the scale
    const float* scale;
    const float* bias;
    float* y;
    size_t hidden, columns;  // y's stride; the columns from y on that there are
    bool accumulate;

    [[gnu::always_inline]] const std::byte* a(size_t r) const { return activations + r * activation_bytes; }
    // Where the next tile writes: rows behind the block's are its first ones in the next panel.
    [[gnu::always_inline]] const std::byte* next(size_t r, size_t c) const {
        const float* place = r < count
                                 ? y + tokens[r] * hidden + c
                                 : y + tokens[r - count < count ? r - count : 0] * hidden + panel_columns;
        return reinterpret_cast<const std::byte*>(place);
    }
    [[gnu::always_inline]] size_t next_bytes(size_t columns_of_tile) const { return columns_of_tile * 4; }

    template <size_t height, size_t width>
    [[gnu::always_inline]] void start(size_t row, size_t c, Register (&sum)[height][width]) const {
        start_sums<Arch, type>(
            bias + c, [&](size_t r) __attribute__((always_inline)) { return sum_of_row[row + r]; }, sum);
    }
    template <size_t height, size_t width>
    [[gnu::always_inline]] void finish(size_t row, size_t c, const Register (&sum)[height][width]) const {
        if (c + width * w > columns) {
            finish_as<Form::part>(row, c, sum);
        } else if (accumulate) {
            finish_as<Form::added>(row, c, sum);
        } else {
            finish_as<Form::written>(row, c, sum);
        }
    }

   private:
    enum class Form { written, added, part };

    // One form a tile: a question at every vector costs 8-bit tiles a tenth of their time.
    template <Form form, size_t height, size_t width>
    [[gnu::always_inline]] void finish_as(size_t row, size_t c, const Register (&sum)[height][width]) const {
        V start[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            start[v] = type == TensorType::s8 ? V::load_unaligned(bias + c + v * w) : V(0.0F);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            float* place = y + tokens[row + r] * hidden + c;
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v) {
                V value;
                if constexpr (type == TensorType::s8) {
                    value = xsimd::fma(xsimd::to_float(Sum(sum[r][v])), V(scale[row + r]), start[v]);
                } else {
                    value = sum[r][v];
                }
                if constexpr (form == Form::part) {
                    store_part(place + v * w, c + v * w, value);
                } else {
                    if constexpr (form == Form::added) value = value + V::load_unaligned(place + v * w);
                    value.store_unaligned(place + v * w);
                }
            }
        }
    }

    // A vector of a tile that crosses the end of y's row: some lie in padding altogether.
    [[gnu::noinline, gnu::cold]] void store_part(float* place, size_t c, V value) const {
        const size_t valid = c >= columns ? 0 : columns - c < w ? columns - c : w;
        if (valid == w) {
            if (accumulate) value = value + V::load_unaligned(place);
            value.store_unaligned(place);
        } else {
            if (accumulate) value = value + load_partial<Arch>(place, valid);
            store_partial<Arch>(place, value, valid);
        }
    }
};

// One leaf, and the shared neurons with it in the first tree, on a block of tokens.
template <class Arch, TensorType type>
class LeafBlock {
   public:
    LeafBlock(const LeafForest& f, const ForestCall& call, const LeafScratch& scratch, size_t tree)
        : f_(f),
          call_(call),
          scratch_(scratch),
          with_shared_(tree == 0 && f.shared_width > 0),
          accumulate_(call.accumulate || tree > 0),
          shared_columns_(with_shared_ ? leaf_padded(f.shared_width) : 0),
          columns_(shared_columns_ + leaf_padded(f.leaf_width)) {}

    // tokens: [count], count <= leaf_token_block; g: the leaf's number among all trees'.
    void run(size_t g, const uint32_t* tokens, size_t count) const {
        read_tails(tokens, count);
        // While one product runs, the weights of the next come: a leaf's are seldom in the near caches.
        const size_t leaf_up = packed_words(type, f_.hidden, leaf_padded(f_.leaf_width));
        const size_t leaf_down = packed_words(type, f_.leaf_width, leaf_padded(f_.hidden));
        if (with_shared_)
            up(f_.shared, 0, f_.shared_width, scratch_.activations, tokens, count, f_.leaf.up + g * leaf_up,
               leaf_up);
        if (f_.gated && f_.leaf_width > 0)
            up(f_.gate, g, f_.leaf_width, scratch_.gates, tokens, count, f_.leaf.up + g * leaf_up, leaf_up);
        if (f_.leaf_width > 0)
            up(f_.leaf, g, f_.leaf_width, scratch_.activations + shared_columns_, tokens, count,
               f_.leaf.down + g * leaf_down, leaf_down);
        activate_values<Arch>(f_.activation, f_.gated ? scratch_.gates : scratch_.activations,
                              count * columns_);
        if (f_.gated) multiply_gates(count * columns_);
        round(g, count);
        down(g, tokens, count);
    }

   private:
    using Ops = PanelOps<Arch, type>;
    static constexpr size_t group = panel_group(type);

    // The last word of x where hidden does not fill it: a whole load would read the next token.
    void read_tails(const uint32_t* tokens, size_t count) const {
        const size_t rest = f_.hidden % group, bytes = f_.hidden * bytes_of(type);
        for (size_t r = 0; r < count && rest > 0; ++r) {
            scratch_.x_tail[r] = 0;
            __builtin_memcpy(
                &scratch_.x_tail[r],
                static_cast<const std::byte*>(call_.x) + (tokens[r] + 1) * bytes - rest * bytes_of(type),
                rest * bytes_of(type));
        }
    }

    // Both are whole vectors of columns.
    [[gnu::noinline]] void multiply_gates(size_t values) const {
        using V = Floats<Arch>;
        for (size_t i = 0; i < values; i += lanes<Arch>)
            (V::load_aligned(scratch_.activations + i) * V::load_aligned(scratch_.gates + i))
                .store_aligned(scratch_.activations + i);
    }

    // activations: of the first token, a token columns_ behind the one before.
    // next: what the product after this one reads, in words.
    void up(const LeafNeurons& neurons, size_t g, size_t width, float* activations, const uint32_t* tokens,
            size_t count, const uint32_t* next, size_t next_words) const {
        const size_t padded = leaf_padded(width);
        PanelJob job;
        job.sources = 1;
        job.source[0].groups = f_.hidden / group;
        job.a_tail = f_.hidden % group > 0 ? scratch_.x_tail : nullptr;
        job.ahead = reinterpret_cast<const std::byte*>(next);
        // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): count is never 0
        job.ahead_lines = next_words / 16 / panel_tiles<Ops>(count);
        UpRows<Arch, type> rows{};
        rows.x = static_cast<const std::byte*>(call_.x);
        rows.x_bytes = f_.hidden * bytes_of(type);
        rows.tokens = tokens;
        rows.x_sum = scratch_.x_sum;
        rows.x_scale = call_.x_scale;
        rows.stride = columns_;
        for (size_t start = 0; start < padded; start += panel_columns) {
            job.columns = padded - start < panel_columns ? padded - start : panel_columns;
            job.source[0].b = neurons.up + (g * padded + start) * panel_groups(type, f_.hidden);
            if constexpr (type == TensorType::s8) rows.scale = neurons.up_scale + g * padded + start;
            rows.bias = neurons.up_bias + g * padded + start;
            rows.activations = activations + start;
            multiply_panel<Ops>(job, count, rows);
            job.ahead_lines = 0;
        }
    }

    [[gnu::noinline]] void round(size_t g, size_t count) const {
        if constexpr (type == TensorType::bf16) {
            round_to_bfloat<Arch>(scratch_.activations, count * columns_,
                                  reinterpret_cast<uint16_t*>(scratch_.rounded));
        } else if constexpr (type == TensorType::s8) {
            const size_t leaf_columns = columns_ - shared_columns_;
            const auto rotated = [&](size_t width) {
                return f_.rotated_activations && rotation_span(width) > 1 ? width : 0;
            };
            const size_t rotated_shared = with_shared_ ? rotated(f_.shared_width) : 0,
                         rotated_leaf = rotated(f_.leaf_width);
            for (size_t r = 0; r < count; ++r)
                scratch_.scale[r] = round_activations<Arch>(
                    scratch_.activations + r * columns_, f_.shared.down_scale, shared_columns_,
                    rotated_shared, f_.leaf.down_scale + g * leaf_columns, leaf_columns, rotated_leaf,
                    reinterpret_cast<int8_t*>(scratch_.rounded) + r * columns_, scratch_.sum[r]);
        }
    }

    void down(size_t g, const uint32_t* tokens, size_t count) const {
        const size_t padded = leaf_padded(f_.hidden);
        DownRows<Arch, type> rows{};
        rows.activations = type == TensorType::f32 ? reinterpret_cast<const std::byte*>(scratch_.activations)
                                                   : reinterpret_cast<const std::byte*>(scratch_.rounded);
        rows.activation_bytes = columns_ * bytes_of(type);
        rows.tokens = tokens;
        rows.count = count;
        rows.sum_of_row = scratch_.sum;
        rows.scale = scratch_.scale;
        rows.hidden = f_.hidden;
        rows.accumulate = accumulate_;
        for (size_t start = 0; start < padded; start += panel_columns) {
            PanelJob job;
            job.columns = padded - start < panel_columns ? padded - start : panel_columns;
            const auto add_source = [&](const LeafNeurons& neurons, size_t of, size_t width, size_t first) {
                const size_t groups = panel_groups(type, width);
                job.source[job.sources++] = {neurons.down + (of * padded + start) * groups, groups,
                                             first / group};
            };
            if (with_shared_) add_source(f_.shared, 0, f_.shared_width, 0);
            if (f_.leaf_width > 0) add_source(f_.leaf, g, f_.leaf_width, shared_columns_);
            rows.bias = f_.bias + g * padded + start;
            rows.y = call_.y + start;
            rows.columns = f_.hidden - start;
            multiply_panel<Ops>(job, count, rows);
        }
    }

    const LeafForest& f_;
    const ForestCall& call_;
    const LeafScratch& scratch_;
    bool with_shared_, accumulate_;
    size_t shared_columns_, columns_;
};

// Where each leaf's tokens are in `order`: those of leaf l end at ends[l], and begin where leaf l - 1's end.
[[gnu::noinline]] inline void count_into_leaves(const LeafForest& f, const ForestCall& call, size_t tree,
                                                const LeafScratch& scratch) {
    uint32_t* ends = scratch.ends;
    const uint32_t* leaf = call.routes.leaf + tree;
    for (size_t l = 0; l <= f.leaves(); ++l)
        ends[l] = 0;
    for (size_t t = 0; t < call.tokens; ++t)
        ++ends[leaf[t * f.trees] + 1];
    for (size_t l = 1; l <= f.leaves(); ++l)
        ends[l] += ends[l - 1];
    // Now ends[l] is where the leaf starts; placing its tokens moves it to where it ends.
    for (size_t t = 0; t < call.tokens; ++t)
        scratch.order[ends[leaf[t * f.trees]]++] = static_cast<uint32_t>(t);
    // Rows that the last tiles fetch ahead of need.
    for (size_t i = 0; i < leaf_order_slack; ++i)
        scratch.order[call.tokens + i] = 0;
}

template <class Arch, TensorType type>
inline void walk_forest(const LeafForest& f, const ForestCall& call, const LeafScratch& scratch) {
    if (type == TensorType::f32 || f.node_rows != TensorType::bf16)
        return walk_all<Arch, type, TensorType::f32>(f, call, scratch);
    if constexpr (type != TensorType::f32) walk_all<Arch, type, TensorType::bf16>(f, call, scratch);
}

template <class Arch, TensorType type>
inline void leaf_forest_tokens(const LeafForest& f, const ForestCall& call) {
    const LeafScratch scratch(f, call.tokens, call.scratch);
    if (call.step != ForestStep::leaves) walk_forest<Arch, type>(f, call, scratch);
    if (call.step == ForestStep::walk) return;
    for (size_t t = 0; t < call.tokens && type == TensorType::s8; ++t)
        scratch.x_sum[t] = sum_of_bytes<Arch>(static_cast<const int8_t*>(call.x) + t * f.hidden, f.hidden);
    const size_t first = call.first_leaf, last = call.last_leaf < f.leaves() ? call.last_leaf : f.leaves();
    for (size_t k = 0; k < f.trees; ++k) {
        count_into_leaves(f, call, k, scratch);
        const LeafBlock<Arch, type> block(f, call, scratch, k);
        size_t begin = first > 0 ? scratch.ends[first - 1] : 0;
        for (size_t leaf = first; leaf < last; ++leaf) {
            const size_t end = scratch.ends[leaf];
            // Blocks of equal size: a few tokens left over would pay for all of the leaf's weights.
            for (size_t left = (end - begin + leaf_token_block - 1) / leaf_token_block; left > 0; --left) {
                const size_t count = (end - begin + left - 1) / left;
                block.run(k * f.leaves() + leaf, scratch.order + begin, count);
                begin += count;
            }
        }
    }
}

}  // namespace
}  // namespace espalier
