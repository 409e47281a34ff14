// The walks of leaf forests, many tokens side by side: a walk is a chain of dependent products, so that one
// alone waits for each. The products of a token are summed in one order, whatever tokens stand beside it.
#pragma once

#include <bit>
#include <cmath>

#include "kernels/forest/leaf_scratch.h"
#include "kernels/forest/rows-inl.h"
#include "kernels/forest/walk-inl.h"

namespace espalier {
namespace {

// Tokens that walk together: enough that the products of the others fill the time until one token's next node
// is known, and few enough that their x stay in a first-level cache.
inline constexpr size_t walk_tokens = 16;

// One level of one tree for `count` tokens from `first` on; x: their values in the type of the node rows.
template <class Arch, TensorType nodes, size_t count>
[[gnu::always_inline]] inline void walk_level(const LeafForest& f, const ForestCall& call, size_t tree,
                                              bool root, size_t first,
                                              const typename RowOps<Arch, nodes>::Value* const* x,
                                              uint32_t* node, float* margin) {
    using Ops = RowOps<Arch, nodes>;
    using Value = typename Ops::Value;
    const size_t tree_nodes = f.leaves() - 1;
    const Value* rows = static_cast<const Value*>(f.node_weight) + tree * tree_nodes * f.hidden;
    const float* thresholds = f.node_threshold + tree * tree_nodes;
    float product[count];
    if (root) {
        dots<Ops, count, true>(&rows, x, f.hidden, product);
    } else {
        const Value* row[count];
        for (size_t t = 0; t < count; ++t)
            row[t] = rows + node[t] * f.hidden;
        dots<Ops, count, false>(row, x, f.hidden, product);
    }
    Four value = load<count>(product);
    if (f.rows == TensorType::s8 && call.walk_x == nullptr) value = value * load<count>(call.x_scale + first);
    Four threshold = {};
#pragma GCC unroll 4
    for (size_t t = 0; t < count; ++t)
        threshold[t] = thresholds[node[t]];
    value = value - threshold;
    store<count>(smaller_margin(load<count>(margin), value), margin);
    store<count>(2 * load<count>(node) + 1 - same_bits_of<FourWords>(goes_right(value, f.tie)), node);
}

// `count` <= walk_tokens tokens from `first` on, through every tree, level by level.
template <class Arch, TensorType nodes>
inline void walk(const LeafForest& f, const ForestCall& call, size_t first, size_t count,
                 const typename RowOps<Arch, nodes>::Value* const* x) {
    // Meanwhile come the x of the tokens after these.
    const bool apart = call.walk_x != nullptr;
    const size_t bytes = walk_tokens * f.hidden * (apart ? sizeof(float) : bytes_of(f.rows));
    const void* source = apart ? call.walk_x : call.x;
    const std::byte* next = static_cast<const std::byte*>(source) + first * (bytes / walk_tokens) + bytes;
    const size_t lines = first + 2 * walk_tokens <= call.tokens && f.depth > 0
                             ? bytes / 64 / (f.trees * f.depth * (walk_tokens / 4))
                             : 0;
    for (size_t k = 0; k < f.trees; ++k) {
        uint32_t node[walk_tokens] = {};
        float margin[walk_tokens];
        for (size_t t = 0; t < count; ++t)
            margin[t] = INFINITY;
        for (size_t level = 0; level < f.depth; ++level) {
            size_t t = 0;
            for (; t + 4 <= count; t += 4) {
                for (size_t i = 0; i < lines; ++i, next += 64)
                    __builtin_prefetch(next);
                walk_level<Arch, nodes, 4>(f, call, k, level == 0, first + t, x + t, node + t, margin + t);
            }
            for (; t < count; ++t)
                walk_level<Arch, nodes, 1>(f, call, k, level == 0, first + t, x + t, node + t, margin + t);
        }
        for (size_t t = 0; t < count; ++t) {
            call.routes.leaf[(first + t) * f.trees + k] = node[t] - static_cast<uint32_t>(f.leaves() - 1);
            call.routes.margin[(first + t) * f.trees + k] = margin[t];
        }
    }
}

template <class Arch>
inline void widen_row(const int8_t* x, float* target, size_t count) {
    size_t i = 0;
    for (; i + lanes<Arch> <= count; i += lanes<Arch>)
        Floats<Arch>(load_widened(x + i)).store_unaligned(target + i);
    for (; i < count; ++i)
        target[i] = static_cast<float>(x[i]);
}
template <class Arch>
inline void widen_row(const uint16_t* x, float* target, size_t count) {
    size_t i = 0;
    for (; i + lanes<Arch> <= count; i += lanes<Arch>)
        Floats<Arch>(load_widened(x + i)).store_unaligned(target + i);
    for (; i < count; ++i)
        target[i] = std::bit_cast<float>(static_cast<uint32_t>(x[i]) << 16);
}
// Exact: 8 bits are what a bfloat16 holds, so the float's upper half is all there is.
template <class Arch>
inline void widen_row(const int8_t* x, uint16_t* target, size_t count) {
    size_t i = 0;
#if defined(__AVX512BF16__)
    for (; i + 32 <= count; i += 32)
        _mm512_storeu_si512(target + i, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(
                                            load_widened(x + i + 16), load_widened(x + i))));
#elif defined(__AVX512F__)
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(target + i),
            _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(load_widened(x + i)), 16)));
#endif
    for (; i < count; ++i)
        target[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(x[i])) >> 16);
}

// All tokens of the call, in their order.
template <class Arch, TensorType type, TensorType nodes>
[[gnu::noinline]] void walk_all(const LeafForest& f, const ForestCall& call, const LeafScratch& scratch) {
    using Value = typename RowOps<Arch, type>::Value;
    using NodeValue = typename RowOps<Arch, nodes>::Value;
    const auto* x = static_cast<const Value*>(call.x);
    auto* wide = reinterpret_cast<NodeValue*>(scratch.wide_x);
    for (size_t first = 0; first < call.tokens; first += walk_tokens) {
        const size_t count = call.tokens - first < walk_tokens ? call.tokens - first : walk_tokens;
        const NodeValue* rows[walk_tokens];
        for (size_t t = 0; t < count; ++t) {
            const Value* row = x + (first + t) * f.hidden;
            if constexpr (type == nodes) {
                rows[t] = row;
            } else {
                if constexpr (nodes == TensorType::f32) {
                    if (call.walk_x != nullptr) {
                        rows[t] = call.walk_x + (first + t) * f.hidden;
                        continue;
                    }
                }
                widen_row<Arch>(row, wide + t * f.hidden, f.hidden);
                rows[t] = wide + t * f.hidden;
            }
        }
        walk<Arch, nodes>(f, call, first, count, rows);
    }
}

}  // namespace
}  // namespace espalier
