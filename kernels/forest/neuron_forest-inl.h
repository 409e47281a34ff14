// Neuron forests on vectors; specification: neuron_forest_scalar.cpp.
#pragma once

#include <cstring>

#include "base/checked.h"
#include "kernels/activation/activation-inl.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/forest/neuron_forest.h"
#include "kernels/forest/walk-inl.h"

namespace espalier {
namespace {

// Four vectors of y stay in registers while all rows of the path pass.
template <class Arch>
inline void add_path(const NeuronForest& f, const float* a, const uint32_t* rows, size_t count, float* y) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    size_t i = 0;
    for (; i + 4 * w <= f.hidden; i += 4 * w) {
        V s0 = V::load_unaligned(y + i), s1 = V::load_unaligned(y + i + w);
        V s2 = V::load_unaligned(y + i + 2 * w), s3 = V::load_unaligned(y + i + 3 * w);
        for (size_t n = 0; n < count; ++n) {
            const float* row = static_cast<const float*>(f.out) + rows[n] * f.hidden + i;
            const V scale(a[n]);
            s0 = xsimd::fma(scale, V::load_unaligned(row), s0);
            s1 = xsimd::fma(scale, V::load_unaligned(row + w), s1);
            s2 = xsimd::fma(scale, V::load_unaligned(row + 2 * w), s2);
            s3 = xsimd::fma(scale, V::load_unaligned(row + 3 * w), s3);
        }
        s0.store_unaligned(y + i);
        s1.store_unaligned(y + i + w);
        s2.store_unaligned(y + i + 2 * w);
        s3.store_unaligned(y + i + 3 * w);
    }
    for (; i < f.hidden; i += w) {
        const size_t valid = f.hidden - i < w ? f.hidden - i : w;
        V sum = load_partial<Arch>(y + i, valid);
        for (size_t n = 0; n < count; ++n)
            sum = xsimd::fma(
                V(a[n]), V::load_unaligned(static_cast<const float*>(f.out) + rows[n] * f.hidden + i), sum);
        store_partial<Arch>(y + i, sum, valid);
    }
}

template <class Arch>
inline void neuron_forest_token(const NeuronForest& f, const float* x, float* y, uint32_t* leaf,
                                float* margin, float* a, uint32_t* rows) {
    for (size_t k = 0; k < f.trees; ++k) {
        leaf[k] = 0;  // the node within its tree, until the walk ends
        margin[k] = INFINITY;
    }
    size_t n = 0;
    for (size_t level = 0; level <= f.depth; ++level) {
        for (size_t k = 0; k < f.trees; ++k, ++n) {
            const size_t row = k * f.nodes() + leaf[k];
            const float z = dot<Arch>(x, static_cast<const float*>(f.in) + row * f.hidden, f.hidden) +
                            (f.in_bias != nullptr ? f.in_bias[row] : 0.0F);
            a[n] = z;
            rows[n] = static_cast<uint32_t>(row);
            if (level == f.depth) continue;  // the last node's sign chooses nothing
            margin[k] = smaller_margin(margin[k], z);
            leaf[k] = 2 * leaf[k] + (goes_right(z, f.tie) ? 2 : 1);
        }
    }
    const auto first_of_last_level = static_cast<uint32_t>((size_t{1} << f.depth) - 1);
    for (size_t k = 0; k < f.trees; ++k)
        leaf[k] -= first_of_last_level;
    activate_values<Arch>(f.activation, a, n);
    add_path<Arch>(f, a, rows, n, y);
}

template <class Arch>
inline void neuron_forest_tokens(const NeuronForest& f, const ForestCall& call) {
    const auto* x = static_cast<const float*>(call.x);
    const size_t tokens = call.tokens;
    float* y = call.y;
    const ForestRoutes& routes = call.routes;
    std::byte* scratch = call.scratch;
    if (!call.accumulate) std::memset(y, 0, tokens * f.hidden * sizeof(float));
    auto* a = reinterpret_cast<float*>(scratch);
    auto* rows = reinterpret_cast<uint32_t*>(scratch + round_up(f.trees * (f.depth + 1) * sizeof(float), 64));
    for (size_t t = 0; t < tokens; ++t, x += f.hidden, y += f.hidden) {
        for (size_t i = 0; i < f.hidden && f.out_bias != nullptr; ++i)
            y[i] += f.out_bias[i];
        neuron_forest_token<Arch>(f, x, y, routes.leaf + t * f.trees, routes.margin + t * f.trees, a, rows);
    }
}

}  // namespace
}  // namespace espalier
