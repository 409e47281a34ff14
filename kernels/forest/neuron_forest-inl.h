// Neuron forests on vectors; specification: neuron_forest_scalar.cpp, reasons and figures: docs/kernels.md.
//
// A group of tokens, a lane each, walks together (neuron_walk-inl.h); outputs come last, one pass over y with
// all rows of the path (path-inl.h, add_rows-inl.h).
//
// Large calls walk one tree in two passes. The first takes the top levels, whose rows stay in the
// second-level cache, in order of arrival; a counting sort then brings together what meets in a subtree, and
// the second pass goes through the subtrees, so that each row comes from memory about once a call.
#pragma once

#include "base/checked.h"
#include "kernels/activation/activation-inl.h"
#include "kernels/forest/neuron_walk-inl.h"
#include "kernels/forest/path-inl.h"

namespace espalier {
namespace {

template <class Arch, TensorType type>
class NeuronCall {
   public:
    using Value = typename RowOps<Arch, type>::Value;
    using Tokens = Walkers<Value>;

    NeuronCall(const NeuronForest& forest, const ForestCall& call, const NeuronPlan& plan,
               const NeuronLayout& layout)
        : f_(forest),
          call_(call),
          plan_(plan),
          walk_(forest, plan_),
          paths_(forest, layout, call.scratch, call.tokens) {
        point(kept_, layout.kept);
        point(kept_factors_, layout.kept_factors);
        point(x_sum_, layout.x_sum);
        point(order_, layout.order);
        point(buckets_, layout.buckets);
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

    size_t group() const { return paths_.group(); }
    // Of the tokens from `start` on, those of one group.
    size_t group_at(size_t start) const { return smaller(group(), call_.tokens - start); }
    static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

    // All levels of all trees for one group after another.
    void run_in_order() {
        uint32_t tokens[NeuronPlan::largest_group];
        for (size_t start = 0; start < call_.tokens; start += group()) {
            const size_t count = group_at(start);
            for (size_t i = 0; i < count; ++i)
                tokens[i] = static_cast<uint32_t>(start + i);
            first_kept_ = start;
            note_x_sums(tokens, count);
            for (size_t k = 0; k < f_.trees; ++k)
                walk(k, tokens, count, 0, f_.levels());
            outputs(tokens, count);
        }
    }

    // Tree by tree, top levels in order of arrival, the others subtree by subtree.
    void run_sorted() {
        uint32_t* const order = order_;
        for (size_t k = 0; k < f_.trees; ++k) {
            for (size_t start = 0; start < call_.tokens; start += group()) {
                const size_t count = group_at(start);
                for (size_t i = start; i < start + count; ++i)
                    order[i] = static_cast<uint32_t>(i);
                if (k == 0) note_x_sums(order + start, count);
                walk(k, order + start, count, 0, plan_.first_levels);
                keep(k, order + start, count, 0, plan_.first_levels);
            }
            const size_t nodes = size_t{1} << plan_.first_levels;
            sort_by_place(k, nodes, nodes - 1);
            const bool outputs_follow = f_.trees == 1 && !plan_.outputs_by_leaf;
            for (size_t start = 0; start < call_.tokens; start += group()) {
                const size_t count = group_at(start);
                fetch_x(start + count);
                walk(k, order + start, count, plan_.first_levels, f_.levels());
                if (outputs_follow) {
                    recall(0, order + start, count, plan_.first_levels);
                    outputs(order + start, count);
                } else {
                    keep(k, order + start, count, plan_.first_levels, f_.levels());
                }
            }
        }
        if (f_.trees == 1 && !plan_.outputs_by_leaf) return;
        // Where several tokens meet in most leaves of one tree, they share their output rows.
        if (plan_.outputs_by_leaf) sort_by_place(0, size_t{1} << f_.depth, 0);
        for (size_t start = 0; start < call_.tokens; start += group()) {
            const size_t count = group_at(start);
            for (size_t k = 0; k < f_.trees; ++k)
                recall(k, order + start, count, f_.levels());
            outputs(order + start, count);
        }
    }

    // Where the walk of a token stands: the node, and at the end its place in the last level.
    uint32_t& place(uint32_t token, size_t tree) { return call_.routes.leaf[token * f_.trees + tree]; }
    float& margin(uint32_t token, size_t tree) { return call_.routes.margin[token * f_.trees + tree]; }

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

    const Value* x(uint32_t token) const { return static_cast<const Value*>(call_.x) + token * f_.hidden; }

    // x of the tokens that come next in order: by now it has left the caches.
    void fetch_x(size_t start) const {
        for (size_t i = start; i < smaller(start + group(), call_.tokens); ++i)
            fetch(x(order_[i]), f_.hidden * sizeof(Value));
    }

    // The sum of each token's 8-bit values, where products move rows up by an offset.
    void note_x_sums([[maybe_unused]] const uint32_t* tokens, [[maybe_unused]] size_t count) {
        if constexpr (type == TensorType::s8) {
            for (size_t i = 0; i < count && RowOps<Arch, type>::row_offset != 0; ++i)
                x_sum_[tokens[i] - first_kept_] = sum_of_bytes<Arch>(x(tokens[i]), f_.hidden);
        }
    }

    // A group from level `from` to level `to`; what its nodes say lies in paths_.
    void walk(size_t k, const uint32_t* tokens, size_t count, size_t from, size_t to) {
        Tokens w;
        w.count = count;
        for (size_t i = 0; i < count; ++i) {
            const uint32_t token = tokens[i];
            w.x[i] = x(token);
            w.node[i] = from == 0 ? 0 : place(token, k);
            w.margin[i] = from == 0 ? INFINITY : margin(token, k);
            if constexpr (type == TensorType::s8) {
                w.x_scale[i] = call_.x_scale[token];
                if (RowOps<Arch, type>::row_offset != 0) w.x_sum[i] = x_sum_[token - first_kept_];
            }
        }
        walk_.run(k, w, from, to, paths_.values(k));
        // Past the last level stands the child that there is not.
        const auto past = static_cast<uint32_t>(f_.nodes());
        for (size_t i = 0; i < count; ++i) {
            place(tokens[i], k) = to == f_.levels() ? (w.node[i] - past) / 2 : w.node[i];
            margin(tokens[i], k) = w.margin[i];
        }
    }

    // What a group's nodes said, for when the group has parted: [tokens, trees, levels].
    void keep(size_t k, const uint32_t* tokens, size_t count, size_t from, size_t to) {
        for (size_t i = 0; i < count; ++i) {
            float* kept = kept_ + (tokens[i] * f_.trees + k) * f_.levels();
            float* factors = kept_factors_ + (tokens[i] * f_.trees + k) * f_.levels();
            for (size_t level = from; level < to; ++level) {
                kept[level] = paths_.activations(k)[level * group() + i];
                if (f_.gated()) factors[level] = paths_.factors(k)[level * group() + i];
            }
        }
    }
    // Of the levels below `to`.
    void recall(size_t k, const uint32_t* tokens, size_t count, size_t to) {
        for (size_t i = 0; i < count; ++i) {
            const float* kept = kept_ + (tokens[i] * f_.trees + k) * f_.levels();
            const float* factors = kept_factors_ + (tokens[i] * f_.trees + k) * f_.levels();
            for (size_t level = 0; level < to; ++level) {
                paths_.activations(k)[level * group() + i] = kept[level];
                if (f_.gated()) paths_.factors(k)[level * group() + i] = factors[level];
            }
        }
    }

    // Outputs of a group.
    void outputs(const uint32_t* tokens, size_t count) {
        paths_.activate();
        OutputRow out[NeuronPlan::largest_group];
        uint32_t last[NeuronPlan::largest_group];
        const auto first_leaf = static_cast<uint32_t>((f_.nodes() + 1) / 2);  // numbered from 1
        for (size_t k = 0; k < f_.trees; ++k) {
            for (size_t i = 0; i < count; ++i)
                last[i] = place(tokens[i], k) + first_leaf;
            paths_.note(k, last, count);
        }
        for (size_t i = 0; i < count; ++i)
            out[i] = {call_.y + tokens[i] * f_.hidden, f_.out_bias, f_.hidden, call_.accumulate,
                      plan_.stream};
        for (size_t i = 0, met = 0; i < count; i += met) {
            const size_t most = f_.trees == 1 ? smaller(NeuronPlan::side, count - i) : 1;
            for (met = 1; met < most && last[i + met] == last[i]; ++met) {
            }
            // On a device three apart are too rare to be worth 9 KB.
            if (lanes<Arch> <= 4 && met == 3) met = 2;
            if (met == 1) add_rows<1>(out + i, i);
            if (met == 2) add_rows<2>(out + i, i);
            if constexpr (lanes < Arch >> 4) {
                if (met == 3) add_rows<3>(out + i, i);
            }
            if (met == 4) add_rows<4>(out + i, i);
        }
    }

    // The tokens from `first` on, which have one path.
    template <size_t tokens>
    void add_rows(const OutputRow* out, size_t first) {
        size_t column = 0;
        if constexpr (levels_a_word < type >> 1) {
            const auto path = paths_.word_path(first);
            if constexpr (tokens == 1 && word_blocks > 1) {
                for (; column + word_blocks * word_columns <= f_.hidden; column += word_blocks * word_columns)
                    add_words<tokens, word_blocks>(out, path, column);
            }
            for (; column + word_columns <= f_.hidden; column += word_columns)
                add_words<tokens, 1>(out, path, column);
        }
        for (; column < f_.hidden; column += block_columns<Arch>)
            add_block<Arch, tokens>(out, paths_.row_path(first), column);
    }

    const NeuronForest& f_;
    const ForestCall& call_;
    NeuronPlan plan_;
    NeuronWalk<Arch, type> walk_;
    GroupPaths<Arch, type> paths_;
    float *kept_ = nullptr, *kept_factors_ = nullptr;
    int32_t* x_sum_ = nullptr;
    uint32_t *order_ = nullptr, *buckets_ = nullptr;
    size_t first_kept_ = 0;  // the token whose sum stands first in x_sum
};

template <class Arch, TensorType type>
inline void neuron_forest_tokens(const NeuronForest& f, const ForestCall& call) {
    const NeuronPlan plan = plan_neuron_forest(f, call.tokens);
    NeuronCall<Arch, type>(f, call, plan, neuron_layout(f, plan, call.tokens)).run();
}

}  // namespace
}  // namespace espalier
