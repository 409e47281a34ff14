// Neuron forests on vectors; specification: neuron_forest_scalar.cpp, reasons and figures: docs/kernels.md.
//
// A few tokens walk together, level by level, their x in the first-level cache: while one waits for its row,
// the others compute. Nothing branches on where a token goes: half of such branches would be mispredicted,
// and each would wait for its row first. Outputs come last, one pass over y with all rows of the path.
//
// Large calls walk one tree in two passes. The first takes the top levels, whose rows stay in the
// second-level cache, in order of arrival; a counting sort then brings together what meets in a subtree, and
// the second pass goes through the subtrees, so that each row comes from memory about once a call.
#pragma once

#include "base/checked.h"
#include "kernels/activation/activation-inl.h"
#include "kernels/forest/add_rows-inl.h"
#include "kernels/forest/neuron_forest.h"
#include "kernels/forest/neuron_plan.h"
#include "kernels/forest/walk-inl.h"

namespace espalier {
namespace {

// Into the second-level cache: a group's rows do not fit the first beside its x.
inline void fetch(const void* row, size_t bytes) {
    const auto* line = static_cast<const char*>(row);
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(line + i, 0, 2);
}

// A dot product holds four partial sums of the 16 registers of AVX2, or of 32.
#if defined(__AVX2__) && !defined(__AVX512F__)
inline constexpr size_t shared_dots = 2;
#else
inline constexpr size_t shared_dots = 4;
#endif

template <class Arch, TensorType type>
class NeuronWalk {
   public:
    using Ops = RowOps<Arch, type>;
    using Value = typename Ops::Value;
    static constexpr size_t group = NeuronPlan::group;
    // Levels of a path that one product takes.
    static constexpr size_t word_levels = levels_a_word<type>;

    NeuronWalk(const NeuronForest& forest, const ForestCall& call)
        : f_(forest),
          call_(call),
          plan_(plan_neuron_forest(forest, call.tokens)),
          x_(static_cast<const Value*>(call.x)) {
        const NeuronLayout layout = neuron_layout(forest, plan_, call.tokens);
        point(z_, layout.z);
        point(g_, layout.g);
        point(x_sum_, layout.x_sum);
        point(order_, layout.order);
        point(buckets_, layout.buckets);
        point(a_, layout.a);
        point(rows_, layout.rows);
        point(words_, layout.words);
        point(scales_, layout.scales);
        point(starts_, layout.starts);
        plan_.stream = plan_.stream && reinterpret_cast<uintptr_t>(call.y) % 64 == 0;
    }

    void run() {
        if (plan_.first_levels == f_.levels()) {
            run_in_order();
        } else {
            run_sorted();
        }
        if (plan_.stream) end_streaming();
    }

   private:
    template <class T>
    void point(T*& place, size_t offset) {
        place = reinterpret_cast<T*>(call_.scratch + offset);
    }

    // All levels of all trees for one group after another.
    void run_in_order() {
        uint32_t tokens[group];
        for (size_t start = 0; start < call_.tokens; start += group) {
            const size_t count = smaller(group, call_.tokens - start);
            for (size_t i = 0; i < count; ++i)
                tokens[i] = static_cast<uint32_t>(start + i);
            z_base_ = start;
            note_x_sums(tokens, count);
            for (size_t k = 0; k < f_.trees; ++k) {
                start_at_root(k, tokens, count);
                walk(k, tokens, count, 0, f_.levels());
            }
            outputs(tokens, count, false);
        }
    }

    // Tree by tree, top levels in order of arrival, the others subtree by subtree.
    void run_sorted() {
        uint32_t* const order = order_;
        z_base_ = 0;
        for (size_t k = 0; k < f_.trees; ++k) {
            for (size_t start = 0; start < call_.tokens; start += group) {
                const size_t count = smaller(group, call_.tokens - start);
                for (size_t i = start; i < start + count; ++i)
                    order[i] = static_cast<uint32_t>(i);
                if (k == 0) note_x_sums(order + start, count);
                start_at_root(k, order + start, count);
                walk(k, order + start, count, 0, plan_.first_levels);
            }
            const size_t nodes = size_t{1} << plan_.first_levels;
            sort_by_place(k, nodes, nodes - 1);
            for (size_t start = 0; start < call_.tokens; start += group) {
                const size_t count = smaller(group, call_.tokens - start);
                // x of the tokens after these: by now it has left the caches.
                for (size_t i = start + count; i < smaller(start + 2 * count, call_.tokens); ++i)
                    fetch(x_ + order[i] * f_.hidden, f_.hidden * sizeof(Value));
                walk(k, order + start, count, plan_.first_levels, f_.levels());
                if (f_.trees == 1 && !plan_.outputs_by_leaf) outputs(order + start, count, false);
            }
        }
        if (plan_.outputs_by_leaf) return outputs_by_leaf();
        for (size_t start = 0; start < call_.tokens && f_.trees > 1; start += group)
            outputs(order + start, smaller(group, call_.tokens - start), false);
    }

    // Several tokens meet in most leaves of one tree: they share all their output rows.
    void outputs_by_leaf() {
        sort_by_place(0, size_t{1} << f_.depth, 0);
        const uint32_t* const order = order_;
        for (size_t start = 0, count = 0; start < call_.tokens; start += count) {
            const size_t most = smaller(group, call_.tokens - start);
            const uint32_t leaf = place(order[start], 0);
            for (count = 1; count < most && place(order[start + count], 0) == leaf; ++count) {
            }
            outputs(order + start, count, true);
        }
    }

    // Where the walk of a token stands: the node, and at the end its place in the last level.
    uint32_t& place(uint32_t token, size_t tree) { return call_.routes.leaf[token * f_.trees + tree]; }

    void start_at_root(size_t k, const uint32_t* tokens, size_t count) {
        for (size_t i = 0; i < count; ++i)
            place(tokens[i], k) = 0;
    }

    // Counting sort of all tokens by where they stand, of `places` from `first` on; stable.
    void sort_by_place(size_t k, size_t places, size_t first) {
        uint32_t* starts = buckets_;
        for (size_t b = 0; b <= places; ++b)
            starts[b] = 0;
        const auto count = static_cast<uint32_t>(call_.tokens);
        for (uint32_t t = 0; t < count; ++t)
            ++starts[place(t, k) - first + 1];
        for (size_t b = 1; b <= places; ++b)
            starts[b] += starts[b - 1];
        for (uint32_t t = 0; t < count; ++t)
            order_[starts[place(t, k) - first]++] = t;
    }

    // A group from level `from` to level `to`.
    void walk(size_t k, const uint32_t* tokens, size_t count, size_t from, size_t to) {
        uint32_t node[group];
        const Value* x[group];
        float *z_rows[group], *g_rows[group];
        for (size_t i = 0; i < count; ++i) {
            node[i] = place(tokens[i], k);
            x[i] = x_ + tokens[i] * f_.hidden;
            z_rows[i] = values_of(z_, tokens[i], k);
            g_rows[i] =
                f_.gated() ? values_of(g_, tokens[i], k) : z_rows[i];  // not written where nothing is gated
        }
        for (size_t level = from; level < to; ++level) {
            bool together = count == group;
            for (size_t i = 1; i < count; ++i)
                together = together && node[i] == node[0];
            float values[group], gates[group] = {};
            if (together) {
                for (size_t i = 0; i < group; i += shared_dots)
                    tests<shared_dots>(k, node[0], x + i, tokens + i, values + i, gates + i);
            }
            for (size_t i = 0; i < count; ++i) {
                if (!together) tests<1>(k, node[i], x + i, tokens + i, values + i, gates + i);
                z_rows[i][level] = values[i];
                if (f_.gated()) g_rows[i][level] = gates[i];
                const float chooses = f_.routes_on_gate ? gates[i] : values[i];
                node[i] = 2 * node[i] + 1 + (goes_right(chooses, f_.tie) ? 1 : 0);
                if (plan_.fetch && level >= plan_.near_levels && level + 1 < to) fetch_rows(k, node[i]);
            }
        }
        // Past the last level stands the child that there is not.
        const auto past = static_cast<uint32_t>(f_.nodes());
        for (size_t i = 0; i < count; ++i)
            place(tokens[i], k) = to == f_.levels() ? (node[i] - past) / 2 : node[i];
    }

    [[gnu::noinline]] void fetch_rows(size_t k, size_t node) const {
        fetch(in_row(k, node), f_.hidden * sizeof(Value));
        if (f_.gated()) fetch(gate_row(k, node), f_.hidden * sizeof(Value));
        fetch(out_row(k, node), f_.hidden * sizeof(Value));
    }

    const Value* in_row(size_t k, size_t node) const {
        return static_cast<const Value*>(f_.in) + (k * f_.nodes() + node) * f_.hidden;
    }
    const Value* gate_row(size_t k, size_t node) const {
        return static_cast<const Value*>(f_.gate) + (k * f_.nodes() + node) * f_.hidden;
    }
    const Value* out_row(size_t k, size_t node) const {
        return static_cast<const Value*>(f_.out) + (k * f_.nodes() + node) * f_.hidden;
    }

    // The pre-activations of a node's neuron, and of its gate where it has one, for `count` tokens.
    template <size_t count>
    void tests(size_t k, size_t node, const Value* const* x, const uint32_t* tokens, float* values,
               float* gates) {
        const size_t row = k * f_.nodes() + node;
        // One copy of the products' code, whatever is gated.
        const Value* const rows[] = {in_row(k, node), gate_row(k, node)};
        const float* const scales[] = {f_.in_scale, f_.gate_scale};
        float* const out[] = {values, gates};
        for (size_t m = 0; m < (f_.gated() ? 2 : 1); ++m)
            products<count>(rows[m], scales[m], row, x, tokens, out[m]);
        if (f_.in_bias == nullptr) return;
        for (size_t t = 0; t < count; ++t)
            values[t] += f_.in_bias[row];
    }

    // scale: 8-bit: of all rows.
    template <size_t count>
    void products(const Value* weights, [[maybe_unused]] const float* scale, [[maybe_unused]] size_t row,
                  const Value* const* x, [[maybe_unused]] const uint32_t* tokens, float* values) {
        if constexpr (type == TensorType::s8) {
            int32_t sums[count];
            dots<Ops, count, true>(&weights, x, f_.hidden, sums);
            for (size_t t = 0; t < count; ++t) {
                if constexpr (Ops::row_offset != 0) sums[t] -= Ops::row_offset * x_sum_[tokens[t] - z_base_];
                values[t] = static_cast<float>(sums[t]) * (scale[row] * call_.x_scale[tokens[t]]);
            }
        } else {
            dots<Ops, count, true>(&weights, x, f_.hidden, values);
        }
    }

    // The sum of each token's 8-bit values, where products move rows up by an offset.
    void note_x_sums([[maybe_unused]] const uint32_t* tokens, [[maybe_unused]] size_t count) {
        if constexpr (type == TensorType::s8) {
            for (size_t i = 0; i < count && Ops::row_offset != 0; ++i)
                x_sum_[tokens[i] - z_base_] = sum_of_bytes<Arch>(x_ + tokens[i] * f_.hidden, f_.hidden);
        }
    }

    // A token's pre-activations, of its neurons or of their gates: [trees, levels].
    float* values_of(float* all, uint32_t token, size_t tree) const {
        return all + ((token - z_base_) * f_.trees + tree) * f_.levels();
    }

    // Levels of a tree's path in whole words: the levels beyond the last count nothing.
    size_t padded_levels() const { return round_up(f_.levels(), word_levels); }
    size_t path() const { return f_.trees * padded_levels(); }

    // Outputs of a group: block by block of columns, so that rows which paths share are in the first-level
    // cache for the second of them. together: all of one leaf.
    void outputs(const uint32_t* tokens, size_t count, bool together) {
        for (size_t i = 0; i < count; ++i) {
            for (size_t k = 0; k < f_.trees; ++k) {
                note_margin(tokens[i], k);
                float* a = a_ + i * path() + k * padded_levels();
                __builtin_memcpy(a, values_of(f_.gated() ? g_ : z_, tokens[i], k),
                                 f_.levels() * sizeof(float));
                for (size_t level = f_.levels(); level < padded_levels(); ++level)
                    a[level] = 0;
            }
        }
        activate_values<Arch>(f_.activation, a_, count * path());
        OutputRow out[group];
        for (size_t i = 0; i < count; ++i) {
            out[i] = {call_.y + tokens[i] * f_.hidden, f_.out_bias, f_.hidden, call_.accumulate,
                      plan_.stream};
            for (size_t k = 0; k < f_.trees; ++k)
                note_path(i * f_.trees + k, k, tokens[i]);
        }
        switch (together ? count : 0) {
            case 2:
                return add_rows<2>(out);
            case 3:
                return add_rows<3>(out);
            case 4:
                return add_rows<4>(out);
            default:
                break;
        }
        add_rows_apart(out, count);
    }

    // Columns that words cover, then the others.
    size_t word_end() const { return word_levels > 1 ? f_.hidden / word_columns * word_columns : 0; }

    // The group's `tokens` tokens, all of one leaf.
    template <size_t tokens>
    void add_rows(const OutputRow* out) {
        if constexpr (word_levels > 1) {
            for (size_t column = 0; column < word_end(); column += word_columns)
                add_words<tokens>(out, word_path(0), column);
        }
        if (word_end() == f_.hidden) return;
        for (size_t column = word_end(); column < f_.hidden; column += block_columns<Arch>)
            add_block<Arch, tokens>(out, row_path(0), column);
    }

    // Tokens of different leaves.
    void add_rows_apart(const OutputRow* out, size_t count) {
        if constexpr (word_levels > 1) {
            for (size_t column = 0; column < word_end(); column += word_columns) {
                for (size_t i = 0; i < count; ++i)
                    add_words<1>(out + i, word_path(i), column);
            }
        }
        if (word_end() == f_.hidden) return;
        for (size_t column = word_end(); column < f_.hidden; column += block_columns<Arch>) {
            for (size_t i = 0; i < count; ++i)
                add_block<Arch, 1>(out + i, row_path(i), column);
        }
    }

    // The smallest |z|, or |g|, of the levels that choose (the last one's sign chooses nothing), NaN before
    // all others.
    void note_margin(uint32_t token, size_t k) {
        const float* values = values_of(f_.routes_on_gate ? g_ : z_, token, k);
        call_.routes.margin[token * f_.trees + k] = smallest_margin(values, f_.depth);
    }

    // Path number `at` of the group, of tree k: its rows, and its activations as they multiply them.
    void note_path(size_t at, size_t k, uint32_t token) {
        const float* gated = f_.gated() ? values_of(z_, token, k) : nullptr;
        const size_t last = place(token, k) + (size_t{1} << f_.depth);  // the last node, numbered from 1
        float* a = a_ + at * padded_levels();
        const Value** rows = rows_ + at * padded_levels();
        for (size_t level = 0; level < padded_levels(); ++level) {
            const size_t node = (level < f_.depth ? last >> (f_.depth - level) : last) - 1;
            rows[level] = out_row(k, node);
            if (gated != nullptr && level < f_.levels()) a[level] *= gated[level];
            if constexpr (type == TensorType::bf16) a[level] = through_bf16(a[level]);
            if constexpr (type == TensorType::s8) a[level] *= f_.out_scale[k * f_.nodes() + node];
        }
        if constexpr (type == TensorType::s8) scales_[at] = round_to_steps(a, padded_levels());
        if constexpr (word_levels == 2) pack_pairs(a, padded_levels(), words_ + at * words_a_tree());
        if constexpr (word_levels == 4)
            starts_[at] = pack_quads(a, padded_levels(), words_ + at * words_a_tree());
    }

    // Of the group's token i.
    RowPath<Value> row_path(size_t i) const {
        const float* a = a_ + i * path();
        const Value* const* rows = rows_ + i * path();
        if constexpr (type == TensorType::s8) {
            return {a, rows, f_.trees, padded_levels(), scales_ + i * f_.trees};
        } else {
            return {a, rows, 1, path(), nullptr};
        }
    }

    size_t words_a_tree() const { return padded_levels() / word_levels; }
    WordPath<Value> word_path(size_t i) const {
        const size_t first = i * f_.trees;
        return {words_ + first * words_a_tree(),
                rows_ + i * path(),
                f_.trees,
                words_a_tree(),
                scales_ + first,
                starts_ + first};
    }

    static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

    const NeuronForest& f_;
    const ForestCall& call_;
    NeuronPlan plan_;
    const Value* x_;
    float *z_ = nullptr, *g_ = nullptr, *a_ = nullptr, *scales_ = nullptr;
    int32_t *x_sum_ = nullptr, *starts_ = nullptr;
    uint32_t *order_ = nullptr, *buckets_ = nullptr, *words_ = nullptr;
    const Value** rows_ = nullptr;
    size_t z_base_ = 0;  // the token whose values stand first in z and x_sum
};

template <class Arch, TensorType type>
inline void neuron_forest_tokens(const NeuronForest& f, const ForestCall& call) {
    NeuronWalk<Arch, type>(f, call).run();
}

}  // namespace
}  // namespace espalier
