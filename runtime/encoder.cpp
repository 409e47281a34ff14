#include "runtime/encoder.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/cpu/parallel.h"
#include "runtime/block_loop.h"
#include "runtime/kv_cache.h"
#include "runtime/leaf_split.h"

namespace espalier {
namespace {

// Least work a thread is woken for. A wake-up costs a few microseconds; a token's norm at hidden 384 about
// 0.1, its walk and leaf about 2, an attention head over a short sentence about 3.
constexpr size_t norm_grain = 32, forest_grain = 4, head_grain = 2;

}  // namespace

Encoder::Encoder(const Model& model, int threads, const PassBuffers& buffers,
                 std::span<const ForestRoutes> routes, const int* cancel)
    : model_(model),
      threads_(threads),
      cancel_(cancel),
      work_(buffers),
      routes_(routes),
      dense_(model.backend().make_runner(threads)) {}

void Encoder::check_cancelled() const {
    if (cancel_ == nullptr) return;
    if (__atomic_load_n(cancel_, __ATOMIC_RELAXED) != 0)
        throw Error(Status::cancelled, "cancelled by the caller");
}

void Encoder::run(const Batch& batch, size_t base, float* x, const Observers& observers) {
    tokens_ = batch.tokens();
    base_ = base;
    x_ = x;
    BlockLoop::run(*this, model_.spec(), batch, observers);
}

const float* Encoder::input() const {
    return model_.spec().norm_placement == NormPlacement::pre ? work_.normed : x_;
}

void Encoder::normalise_input(const NormWeights& norm) {
    normalise(norm, x_, nullptr, work_.normed);
}

void Encoder::final_norm() {
    const NormWeights& last = model_.prepared().final_norm;
    if (last.weight != nullptr) normalise(last, x_, nullptr, x_);
}

void Encoder::start_beside() {
    const size_t bytes = tokens_ * model_.spec().hidden * sizeof(float);
    std::memcpy(work_.beside_x, x_, bytes);
    std::memcpy(work_.beside_sum, x_, bytes);
}

void Encoder::go_back_beside() {
    std::memcpy(x_, work_.beside_x, tokens_ * model_.spec().hidden * sizeof(float));
}

// X + h_1(X) + h_2(X) + …, h(X) = f(X) - X.
void Encoder::collect_beside() {
    const size_t count = tokens_ * model_.spec().hidden;
    for (size_t i = 0; i < count; ++i)
        work_.beside_sum[i] += x_[i] - work_.beside_x[i];
}

void Encoder::end_beside() {
    std::memcpy(x_, work_.beside_sum, tokens_ * model_.spec().hidden * sizeof(float));
}

// x = word[id] + position[place in its sequence] + type, then the embedding's norm.
void Encoder::embed(const Batch& batch) {
    // Words ahead of the one that is added: a miss to memory takes about as long.
    constexpr size_t ahead = 4;
    const PreparedModel& prepared = model_.prepared();
    const KernelTable& kernels = model_.kernels();
    const size_t hidden = model_.spec().hidden;
    for (size_t s = 0; s < batch.sequences(); ++s) {
        for (size_t t = batch.offsets[s]; t < batch.offsets[s + 1]; ++t) {
            float* x = x_ + t * hidden;
            if (t + ahead < batch.tokens()) prepared.words.fetch(static_cast<size_t>(batch.ids[t + ahead]));
            prepared.words.row(kernels.widen, static_cast<size_t>(batch.ids[t]), x);
            if (prepared.positions.tensor != nullptr)
                prepared.positions.row(kernels.add_widened, t - batch.offsets[s], x);
            if (prepared.types.tensor != nullptr)
                prepared.types.row(kernels.add_widened, batch.types.empty() ? 0 : batch.types[t], x);
        }
    }
    if (prepared.embedding_norm.weight != nullptr) {
        normalise(prepared.embedding_norm, x_, nullptr, x_);
    } else if (model_.spec().norm_placement == NormPlacement::post) {
        rounded(x_, tokens_, hidden, work_.rounded, work_.rounded_scale);
    }
}

// y also goes, rounded, to where layers read it (input_rows).
void Encoder::normalise(const NormWeights& norm, const float* x, const float* residual, float* y) {
    const size_t hidden = model_.spec().hidden;
    const TensorType precision = model_.precision();
    parallel_for(threads_, tokens_, norm_grain, [&](size_t begin, size_t end, int) {
        RoundedRows rounded{precision};
        if (precision != TensorType::f32) rounded.rows = work_.rounded + begin * hidden * bytes_of(precision);
        if (precision == TensorType::s8) rounded.scale = work_.rounded_scale + begin;
        model_.kernels().norm(norm, x + begin * hidden,
                              residual != nullptr ? residual + begin * hidden : nullptr, y + begin * hidden,
                              rounded, end - begin);
    });
}

// What normalise() wrote last, as layers take it.
Encoder::Rows Encoder::input_rows(const float* normed) const {
    if (model_.precision() == TensorType::f32) return {normed};
    return {work_.rounded, model_.precision() == TensorType::s8 ? work_.rounded_scale : nullptr, normed};
}

// Adds what the sublayer left in y: post-norm x = norm(y + x), pre-norm x = x + y.
void Encoder::add_output(const NormWeights& norm) {
    if (model_.spec().norm_placement == NormPlacement::post) {
        normalise(norm, work_.y, x_, x_);
        return;
    }
    const size_t count = tokens_ * model_.spec().hidden;
    for (size_t i = 0; i < count; ++i)
        x_[i] += work_.y[i];
}

Encoder::Rows Encoder::rounded(const float* x, size_t rows, size_t columns, std::byte* target, float* scale,
                               bool rotated) {
    const TensorType precision = model_.precision();
    if (precision == TensorType::f32) return {x};
    const bool is_8bit = precision == TensorType::s8;
    parallel_for(threads_, rows, norm_grain, [&](size_t begin, size_t end, int) {
        model_.kernels().round(precision, rotated, x + begin * columns, end - begin, columns,
                               target + begin * columns * bytes_of(precision),
                               is_8bit ? scale + begin : nullptr);
    });
    return {target, is_8bit ? scale : nullptr, x};
}

void Encoder::attention(size_t b, const Batch& batch) {
    const PreparedBlock& block = model_.prepared().blocks[b];
    const Rows x = input_rows(input());
    dense_->run(*block.qkv, x.values, x.scale, work_.qkv, tokens_);
    if (cache_ != nullptr) {
        cache_->attend(block, reinterpret_cast<float*>(work_.qkv), tokens_, work_.mix);
    } else {
        mix_sequences(block, batch);
    }
    const Rows mix =
        rounded(work_.mix, tokens_, block.attention.query_width(), work_.rounded, work_.rounded_scale);
    dense_->run(*block.attention_out, mix.values, mix.scale, work_.y, tokens_);
}

// Every token of a sequence against every other, head by head.
void Encoder::mix_sequences(const PreparedBlock& block, const Batch& batch) {
    const AttentionShape& shape = block.attention;
    const KernelTable& kernels = model_.kernels();
    parallel_for(
        threads_, batch.sequences() * shape.heads, head_grain, [&](size_t begin, size_t end, int thread) {
            auto* scratch = reinterpret_cast<float*>(work_.thread_scratch + static_cast<size_t>(thread) *
                                                                                work_.thread_scratch_bytes);
            for (size_t unit = begin; unit < end; ++unit) {
                const size_t s = unit / shape.heads, first = batch.offsets[s];
                const std::byte* qkv = work_.qkv + first * block.qkv_row_bytes();
                float* mix = work_.mix + first * shape.query_width();
                if (block.narrow_attention != nullptr) {
                    block.narrow_attention(shape, reinterpret_cast<const uint16_t*>(qkv), batch.length(s),
                                           unit % shape.heads, mix, scratch);
                } else {
                    kernels.attention(shape, reinterpret_cast<const float*>(qkv), batch.length(s),
                                      unit % shape.heads, mix, scratch);
                }
            }
        });
}

// y = or += a part of the block. The answer: whether there is anything in y now; a dense part that a leaf
// forest of its block runs gives nothing by itself.
bool Encoder::run_part(size_t b, size_t p, bool written) {
    const auto& parts = model_.prepared().blocks[b].parts;
    const PreparedPart& part = parts[p];
    const size_t hidden = model_.spec().hidden, count = tokens_ * hidden;
    const Rows x = input_rows(input());
    if (part.spec->kind != PartKind::dense) {
        // Neurons of trees are read where they stand, not turned: 8-bit x neither, from the first on.
        const auto is_neurons = [](const PreparedPart& other) {
            return other.spec->kind == PartKind::neuron_forest;
        };
        if (is_neurons(part) && model_.precision() == TensorType::s8 &&
            std::none_of(parts.begin(), parts.begin() + static_cast<ptrdiff_t>(p), is_neurons))
            rounded(input(), tokens_, hidden, work_.rounded, work_.rounded_scale, false);
        forest(part, x, written);
        return true;
    }
    if (part.up == nullptr) return false;
    dense_part(part, x, written ? work_.extra : work_.y);
    for (size_t i = 0; i < count && written; ++i)
        work_.y[i] += work_.extra[i];
    return true;
}

void Encoder::clear_output() {
    std::memset(work_.y, 0, tokens_ * model_.spec().hidden * sizeof(float));
}

// Block by block of tokens. A backend may leave anything in the rows of y behind a block's: the next block's,
// or padding.
void Encoder::dense_part(const PreparedPart& part, const Rows& input, float* y) {
    const size_t hidden = model_.spec().hidden, width = part.spec->width,
                 row_bytes = hidden * bytes_of(model_.precision());
    for (size_t start = 0; start < tokens_; start += inner_tokens) {
        const size_t count = std::min(inner_tokens, tokens_ - start);
        const auto* x = static_cast<const std::byte*>(input.values) + start * row_bytes;
        const float* x_scale = input.scale != nullptr ? input.scale + start : nullptr;
        Rows inner{work_.inner};
        if (part.gate != nullptr) {
            inner = gated(part, x, x_scale, count);
        } else {
            dense_->run(*part.up, x, x_scale, work_.inner, count);
        }
        if (part.gate == nullptr && model_.precision() == TensorType::s8)
            inner = rounded(reinterpret_cast<const float*>(work_.inner), count, width, work_.inner_rounded,
                            work_.inner_rounded_scale);
        dense_->run(*part.down, inner.values, inner.scale, y + start * hidden, count);
    }
}

// act(x G) * (x U), multiplied in float32; then rounded as the layer behind reads it.
Encoder::Rows Encoder::gated(const PreparedPart& part, const std::byte* x, const float* x_scale,
                             size_t count) {
    dense_->run(*part.up, x, x_scale, work_.inner, count);
    dense_->run(*part.gate, x, x_scale, work_.gate, count);
    auto* inner = reinterpret_cast<float*>(work_.inner);
    for (size_t i = 0; i < count * part.spec->width; ++i)
        inner[i] *= work_.gate[i];
    return rounded(inner, count, part.spec->width, work_.inner_rounded, work_.inner_rounded_scale);
}

// Tokens from `begin` to `end`.
ForestCall Encoder::forest_call(const PreparedPart& part, const Rows& input, bool accumulate, size_t begin,
                                size_t end, int thread) const {
    const size_t hidden = model_.spec().hidden, trees = part.spec->trees;
    const ForestRoutes& routes = routes_[part.forest];
    ForestCall call;
    call.x = static_cast<const std::byte*>(input.values) + begin * hidden * bytes_of(model_.precision());
    call.x_scale = input.scale != nullptr ? input.scale + begin : nullptr;
    if (part.spec->kind == PartKind::leaf_forest && input.exact != nullptr)
        call.walk_x = input.exact + begin * hidden;
    call.tokens = end - begin;
    call.y = work_.y + begin * hidden;
    call.accumulate = accumulate;
    call.routes = {routes.leaf + (base_ + begin) * trees, routes.margin + (base_ + begin) * trees};
    call.scratch = work_.thread_scratch + static_cast<size_t>(thread) * work_.thread_scratch_bytes;
    return call;
}

void Encoder::forest(const PreparedPart& part, const Rows& input, bool accumulate) {
    if (part.spec->kind == PartKind::neuron_forest) {
        const auto kernel = model_.kernels().neuron_forest(part.neuron_forest.rows);
        return parallel_for(threads_, tokens_, forest_grain, [&](size_t begin, size_t end, int thread) {
            kernel(part.neuron_forest, forest_call(part, input, accumulate, begin, end, thread));
        });
    }
    const auto kernel = model_.kernels().leaf_forest(part.leaf_forest.rows);
    const bool shares = threads_ > 1 && part.spec->trees == 1 && tokens_ >= 2 * forest_grain;
    const auto run_tokens = [&](ForestStep step) {
        parallel_for(threads_, tokens_, forest_grain, [&](size_t begin, size_t end, int thread) {
            ForestCall call = forest_call(part, input, accumulate, begin, end, thread);
            call.step = step;
            kernel(part.leaf_forest, call);
        });
    };
    if (!shares) return run_tokens(ForestStep::all);
    run_tokens(ForestStep::walk);
    const std::span<uint32_t> ends{work_.leaf_ends, static_cast<size_t>(threads_)};
    if (!split_leaves({routes_[part.forest].leaf + base_, tokens_},
                      {work_.leaf_counts, part.leaf_forest.leaves()}, ends))
        return run_tokens(ForestStep::leaves);
    parallel_for(threads_, ends.size(), 1, [&](size_t begin, size_t end, int thread) {
        ForestCall call = forest_call(part, input, accumulate, 0, tokens_, thread);
        call.step = ForestStep::leaves;
        call.first_leaf = begin > 0 ? ends[begin - 1] : 0;
        call.last_leaf = ends[end - 1];
        kernel(part.leaf_forest, call);
    });
}

}  // namespace espalier
