// Walks through the trees of a neuron forest, level by level, for a group of tokens, four side by side: while
// some wait for their rows, the others compute. Nothing branches on where a token goes: half of such branches
// would be mispredicted, and each would wait for its row first.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/forest/neuron_forest.h"
#include "kernels/forest/neuron_plan.h"
#include "kernels/forest/rows-inl.h"
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

// What a walk knows of the tokens of a group.
template <class Value>
struct Walkers {
    static constexpr size_t most = NeuronPlan::largest_group;
    size_t count = 0;
    const Value* x[most];
    uint32_t node[most] = {};
    float margin[most];   // so far, as ForestRoutes has it
    float x_scale[most];  // 8-bit only
    int32_t x_sum[most];  // of x, for products that move rows up by an offset
};

// Where a walk writes the z of its tokens, and their g in gated forests: [levels, lanes], a token a lane.
struct NodeValues {
    float* z = nullptr;
    float* g = nullptr;
    size_t lanes = 0;
};

template <class Arch, TensorType type>
class NeuronWalk {
   public:
    using Ops = RowOps<Arch, type>;
    using Value = typename Ops::Value;
    using Tokens = Walkers<Value>;
    static constexpr size_t side = NeuronPlan::side;

    NeuronWalk(const NeuronForest& forest, const NeuronPlan& plan) : f_(forest), plan_(plan) {}

    // From level `from` to level `to` of tree k: nodes and margins go on from what they are.
    void run(size_t k, Tokens& w, size_t from, size_t to, const NodeValues& values) const {
        for (size_t level = from; level < to; ++level) {
            const bool next_is_far = level + 1 < to && level + 1 > plan_.near_levels;
            if (plan_.fetch_ahead && next_is_far) fetch_tests(k, 2 * w.node[0] + 1, 2);
            size_t i = 0;
            for (; i + side <= w.count; i += side)
                step<side>(k, level, w, i, values, next_is_far);
            for (; i < w.count; ++i)
                step<1>(k, level, w, i, values, next_is_far);
        }
    }

   private:
    // One level of the tokens from i on: what their nodes say, and the children they go to.
    template <size_t width>
    [[gnu::always_inline]] void step(size_t k, size_t level, Tokens& w, size_t i, const NodeValues& values,
                                     bool next_is_far) const {
        uint32_t node[width];
        __builtin_memcpy(node, w.node + i, sizeof(node));
        Four z = products<width>(f_.in, f_.in_scale, k, node, w, i);
        if (f_.in_bias != nullptr) z = z + values_at<width>(f_.in_bias + k * f_.nodes(), node);
        Four chooses = z;
        store<width>(z, values.z + level * values.lanes + i);
        if (values.g != nullptr) {  // gated
            const Four g = products<width>(f_.gate, f_.gate_scale, k, node, w, i);
            store<width>(g, values.g + level * values.lanes + i);
            if (f_.routes_on_gate) chooses = g;
        }
        if (level < f_.depth)  // the last node's sign chooses nothing
            store<width>(smaller_margin(load<width>(w.margin + i), chooses), w.margin + i);
        const auto children =
            2 * load<width>(w.node + i) + 1 - same_bits_of<FourWords>(goes_right(chooses, f_.tie));
        store<width>(children, w.node + i);
        if (plan_.fetch && next_is_far) {
            for (size_t t = 0; t < width; ++t)
                fetch_rows(k, w.node[i + t]);
        }
    }

    // A node's row times x, in lanes from the first on. scale: 8-bit: of all rows.
    template <size_t width>
    [[gnu::always_inline]] Four products(const void* weights, [[maybe_unused]] const float* scale, size_t k,
                                         const uint32_t (&node)[width], const Tokens& w, size_t i) const {
        using Sum = std::conditional_t<type == TensorType::s8, int32_t, float>;
        const auto* const tree = static_cast<const Value*>(weights) + k * f_.nodes() * f_.hidden;
        const Value* rows[width];
        uint32_t apart = 0;
#pragma GCC unroll 4
        for (size_t t = 0; t < width; ++t) {
            rows[t] = tree + node[t] * f_.hidden;
            apart |= node[t] ^ node[0];
        }
        Sum sums[width];
        constexpr size_t at_once = width < shared_dots ? width : shared_dots;
#pragma GCC unroll 2
        for (size_t t = 0; t < width; t += at_once) {
            if (width > 1 && apart == 0) {
                dots<Ops, at_once, true>(rows, w.x + i + t, f_.hidden, sums + t);
            } else {
                dots<Ops, at_once, false>(rows + t, w.x + i + t, f_.hidden, sums + t);
            }
        }
        if constexpr (type == TensorType::s8) {
            FourIntegers whole = load<width>(sums);
            if constexpr (Ops::row_offset != 0) whole -= Ops::row_offset * load<width>(w.x_sum + i);
            return __builtin_convertvector(whole, Four) *
                   (values_at<width>(scale + k * f_.nodes(), node) * load<width>(w.x_scale + i));
        } else {
            return load<width>(sums);
        }
    }

    template <size_t width>
    static Four values_at(const float* all, const uint32_t (&node)[width]) {
        Four values = {};
#pragma GCC unroll 4
        for (size_t t = 0; t < width; ++t)
            values[t] = all[node[t]];
        return values;
    }

    [[gnu::noinline]] void fetch_rows(size_t k, size_t node) const {
        if (!plan_.fetch_ahead) fetch_tests(k, node, 1);
        fetch(row(f_.out, k, node), f_.hidden * sizeof(Value));
    }
    [[gnu::noinline]] void fetch_tests(size_t k, size_t node, size_t nodes) const {
        fetch(row(f_.in, k, node), nodes * f_.hidden * sizeof(Value));
        if (f_.gated()) fetch(row(f_.gate, k, node), nodes * f_.hidden * sizeof(Value));
    }
    const Value* row(const void* rows, size_t k, size_t node) const {
        return static_cast<const Value*>(rows) + (k * f_.nodes() + node) * f_.hidden;
    }

    const NeuronForest& f_;
    const NeuronPlan& plan_;
};

}  // namespace
}  // namespace espalier
