// The paths of a group of tokens, a lane a token: from what the nodes said to what multiplies their output
// rows. float32: the activations; bf16: rounded, and packed in pairs; 8-bit: times the scales of their rows,
// in whole steps of one scale a token and tree, and packed in quads.
#pragma once

#include <cmath>

#include "kernels/activation/activation-inl.h"
#include "kernels/forest/add_rows-inl.h"
#if defined(__ARM_NEON)
#include "kernels/forest/add_words_neon-inl.h"
#endif
#include "kernels/forest/neuron_forest.h"
#include "kernels/forest/neuron_walk-inl.h"

namespace espalier {
namespace {

#if defined(__AVX2__)
using FourArch = xsimd::sse4_1;
#else
using FourArch = NeonArch;
#endif

// `levels` vectors of a, each to whole steps of its lane's scale, -127 to 127. Infinities and NaN have no
// 8-bit form: they make the scale NaN, and with it the token's whole output, on every instruction set. (Only
// a subnormal scale, itself rounded to few bits, lets the largest values pass 127.)
template <class Arch>
inline void round_to_steps(float* a, size_t levels, float* scales) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    // As integers, magnitudes are ordered as they are as numbers, infinities and then NaN above all others.
    Integers<Arch> most(0);
    for (size_t n = 0; n < levels; ++n)
        most = xsimd::max(
            most, same_bits<Integers<Arch>>(V::load_unaligned(a + n * w)) & Integers<Arch>(0x7fffffff));
    const V largest = same_bits<V>(most);
    const V scale = xsimd::select(largest <= V(3.402823466e+38F), largest / V(127.0F), V(NAN));
    scale.store_unaligned(scales);
    for (size_t n = 0; n < levels; ++n) {
        const V steps = xsimd::nearbyint(V::load_unaligned(a + n * w) / scale);
        const V bounded = xsimd::max(xsimd::min(steps, V(127.0F)), V(-127.0F));
        xsimd::select(scale > V(0.0F), bounded, V(0.0F)).store_unaligned(a + n * w);
    }
}

template <class Arch, TensorType type>
class GroupPaths {
   public:
    using Value = typename RowOps<Arch, type>::Value;

    // For calls on `tokens` tokens.
    GroupPaths(const NeuronForest& forest, const NeuronLayout& layout, std::byte* scratch, size_t tokens)
        : f_(forest),
          levels_(round_up(forest.levels(), levels_a_word<type>)),
          group_(tokens <= NeuronPlan::side ? size_t{NeuronPlan::side} : lanes<Arch>),
          a_(reinterpret_cast<float*>(scratch + layout.a)),
          factors_(reinterpret_cast<float*>(scratch + layout.factors)),
          rows_(reinterpret_cast<const Value**>(scratch + layout.rows)),
          words_(reinterpret_cast<uint32_t*>(scratch + layout.words)),
          scales_(reinterpret_cast<float*>(scratch + layout.scales)),
          starts_(reinterpret_cast<int32_t*>(scratch + layout.starts)) {
        static_assert(lanes<Arch> <= NeuronPlan::largest_group && lanes<Arch> % NeuronPlan::side == 0);
        for (size_t i = 0; i < f_.trees * levels_ * group_; ++i)
            a_[i] = 0;
    }

    // Tokens of a group: a vector's lanes, or four.
    size_t group() const { return group_; }

    // What will be activated, of tree k, and in gated forests what multiplies it then: [levels, group].
    float* activations(size_t k) const { return a_ + k * levels_ * group_; }
    float* factors(size_t k) const { return factors_ + k * levels_ * group_; }
    NodeValues values(size_t k) const {
        if (f_.gated()) return {factors(k), activations(k), group_};
        return {activations(k), nullptr, group_};
    }

    void activate() {
        activate_values<Arch>(f_.activation, a_, f_.trees * levels_ * group_);
        for (size_t i = 0; i < f_.trees * levels_ * group_ && f_.gated(); ++i)
            a_[i] *= factors_[i];
    }

    // The paths of the first `count` tokens through tree k, activated. last: their last nodes, numbered from
    // 1.
    void note(size_t k, const uint32_t* last, size_t count) {
        if (group_ == lanes<Arch>) {
            note_lanes<Arch>(k, last, count);
        } else {
            note_lanes<FourArch>(k, last, count);
        }
    }

    // Of the group's token i.
    RowPath<Value> row_path(size_t i) const {
        const Value* const* rows = rows_ + i * f_.trees * levels_;
        if constexpr (type == TensorType::s8) {
            return {a_ + i, rows, f_.trees, levels_, group_, scales_ + i};
        } else {
            return {a_ + i, rows, 1, f_.trees * levels_, group_, nullptr};
        }
    }
    WordPath<Value> word_path(size_t i) const {
        return {words_ + i, rows_ + i * f_.trees * levels_, f_.trees, words_a_tree(), group_, scales_ + i,
                starts_ + i};
    }

   private:
    size_t words_a_tree() const { return levels_ / levels_a_word<type>; }

    // Lanes: the instruction set whose vectors have as many lanes as a group has tokens.
    template <class Lanes>
    void note_lanes(size_t k, const uint32_t* last, size_t count) {
        constexpr size_t group = lanes<Lanes>;
        float* a = activations(k);
        for (size_t i = f_.levels() * group; i < levels_ * group; ++i)
            a[i] = 0;  // levels beyond the last, which fill up words
        const Value* const out = static_cast<const Value*>(f_.out) + k * f_.nodes() * f_.hidden;
        for (size_t level = 0; level < levels_; ++level) {
            const size_t above = level < f_.depth ? f_.depth - level : 0;
            for (size_t t = 0; t < count; ++t) {
                const size_t node = (last[t] >> above) - 1;
                rows_[(t * f_.trees + k) * levels_ + level] = out + node * f_.hidden;
                if constexpr (type == TensorType::s8)
                    a[level * group + t] *= f_.out_scale[k * f_.nodes() + node];
            }
        }
        uint32_t* words = words_ + k * words_a_tree() * group;
        if constexpr (type == TensorType::s8) round_to_steps<Lanes>(a, levels_, scales_ + k * group);
        if constexpr (type == TensorType::bf16) {
            for (size_t i = 0; i < levels_ * group; ++i)
                a[i] = through_bf16(a[i]);
        }
        if constexpr (levels_a_word<type> == 2) pack_pairs<group>(a, words);
        if constexpr (levels_a_word<type> == 4) pack_quads<group>(a, words, starts_ + k * group);
    }

    template <size_t group>
    void pack_pairs(const float* a, uint32_t* words) const {
        for (size_t n = 0; n < words_a_tree(); ++n) {
            for (size_t t = 0; t < group; ++t) {
                uint32_t first = 0, second = 0;
                __builtin_memcpy(&first, a + 2 * n * group + t, sizeof(first));
                __builtin_memcpy(&second, a + (2 * n + 1) * group + t, sizeof(second));
                words[n * group + t] = (first >> 16) | (second & 0xffff0000u);
            }
        }
    }

    // starts: what a sum over rows that are moved up by 128 starts with.
    template <size_t group>
    void pack_quads(const float* a, uint32_t* words, int32_t* starts) const {
        int32_t sums[group] = {};
        for (size_t n = 0; n < words_a_tree(); ++n) {
            const float* quad = a + 4 * n * group;
            for (size_t t = 0; t < group; ++t) {
                const auto a0 = static_cast<int32_t>(quad[t]), a1 = static_cast<int32_t>(quad[group + t]),
                           a2 = static_cast<int32_t>(quad[2 * group + t]),
                           a3 = static_cast<int32_t>(quad[3 * group + t]);
                sums[t] += a0 + a1 + a2 + a3;
                words[n * group + t] =
                    (static_cast<uint32_t>(a0) & 0xffu) | (static_cast<uint32_t>(a1) & 0xffu) << 8 |
                    (static_cast<uint32_t>(a2) & 0xffu) << 16 | static_cast<uint32_t>(a3) << 24;
            }
        }
        for (size_t t = 0; t < group; ++t)
            starts[t] = -128 * sums[t];
    }

    const NeuronForest& f_;
    size_t levels_;  // of a tree's path, in whole words
    size_t group_;
    float* a_;            // [trees, levels, group]
    float* factors_;      // the same, of gated forests
    const Value** rows_;  // [group, trees, levels]
    uint32_t* words_;     // [trees, words, group]
    float* scales_;       // [trees, group], 8-bit only
    int32_t* starts_;     // [trees, group], 8-bit only
};

}  // namespace
}  // namespace espalier
