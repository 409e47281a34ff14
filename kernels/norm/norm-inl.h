// The norms on vectors; specification: norm_scalar.cpp.
#pragma once

#include <cmath>

#include "kernels/cpu/simd-inl.h"
#include "kernels/norm/norm.h"

namespace espalier {
namespace {

template <class Arch>
inline void norm_row(const NormWeights& n, const float* x, const float* residual, float* y) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const size_t whole = n.hidden / w * w, tail = n.hidden - whole;
    V sum(0.0F);
    for (size_t i = 0; i < whole; i += w) {
        V value = V::load_unaligned(x + i);
        if (residual != nullptr) value = value + V::load_unaligned(residual + i);
        value.store_unaligned(y + i);
        sum = sum + value;
    }
    float total = xsimd::hadd(sum);
    for (size_t i = whole; i < n.hidden; ++i) {
        y[i] = residual != nullptr ? x[i] + residual[i] : x[i];
        total += y[i];
    }
    const float mean = n.rms ? 0.0F : total / static_cast<float>(n.hidden);
    V squares(0.0F);
    for (size_t i = 0; i < whole; i += w) {
        const V centred = V::load_unaligned(y + i) - V(mean);
        squares = xsimd::fma(centred, centred, squares);
    }
    float variance = xsimd::hadd(squares);
    for (size_t i = whole; i < n.hidden; ++i)
        variance += (y[i] - mean) * (y[i] - mean);
    const float scale = 1.0F / std::sqrt(variance / static_cast<float>(n.hidden) + n.epsilon);
    const auto finish = [&](V value, V weight, V bias) {
        return xsimd::fma((value - V(mean)) * V(scale), weight, bias);
    };
    for (size_t i = 0; i < whole; i += w) {
        const V bias = n.bias != nullptr ? V::load_unaligned(n.bias + i) : V(0.0F);
        finish(V::load_unaligned(y + i), V::load_unaligned(n.weight + i), bias).store_unaligned(y + i);
    }
    if (tail == 0) return;
    const V bias = n.bias != nullptr ? load_partial<Arch>(n.bias + whole, tail) : V(0.0F);
    store_partial<Arch>(
        y + whole,
        finish(load_partial<Arch>(y + whole, tail), load_partial<Arch>(n.weight + whole, tail), bias), tail);
}

template <class Arch>
inline void norm_rows(const NormWeights& n, const float* x, const float* residual, float* y, size_t tokens) {
    for (size_t t = 0; t < tokens; ++t)
        norm_row<Arch>(n, x + t * n.hidden, residual != nullptr ? residual + t * n.hidden : nullptr,
                       y + t * n.hidden);
}

}  // namespace
}  // namespace espalier
