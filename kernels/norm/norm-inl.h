// The norms on vectors; specification: norm_scalar.cpp.
#pragma once

#include <cmath>

#include "kernels/cpu/simd-inl.h"
#include "kernels/norm/norm.h"
#include "kernels/quantize/round-inl.h"

namespace espalier {
namespace {

template <size_t step, class Even, class Odd>
[[gnu::always_inline]] inline void in_turns(size_t end, const Even& even, const Odd& odd) {
    size_t i = 0;
    for (; i + 2 * step <= end; i += 2 * step) {
        even(i);
        odd(i + step);
    }
    if (i < end) even(i);
}

template <class Arch>
inline void norm_row(const NormWeights& n, const float* x, const float* residual, float* y) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const size_t whole = n.hidden / w * w, tail = n.hidden - whole;
    // Two sums in turn, which hide half of an addition's latency; the next row's begin meanwhile.
    V sum[2] = {V(0.0F), V(0.0F)};
    const auto add = [&](size_t i, V& to) {
        V value = V::load_unaligned(x + i);
        if (residual != nullptr) value = value + V::load_unaligned(residual + i);
        value.store_unaligned(y + i);
        to = to + value;
    };
    in_turns<w>(
        whole, [&](size_t i) { add(i, sum[0]); }, [&](size_t i) { add(i, sum[1]); });
    float total = xsimd::hadd(sum[0] + sum[1]);
    for (size_t i = whole; i < n.hidden; ++i) {
        y[i] = residual != nullptr ? x[i] + residual[i] : x[i];
        total += y[i];
    }
    const float mean = n.rms ? 0.0F : total / static_cast<float>(n.hidden);
    V squares[2] = {V(0.0F), V(0.0F)};
    const auto add_square = [&](size_t i, V& to) {
        const V centred = V::load_unaligned(y + i) - V(mean);
        to = xsimd::fma(centred, centred, to);
    };
    in_turns<w>(
        whole, [&](size_t i) { add_square(i, squares[0]); }, [&](size_t i) { add_square(i, squares[1]); });
    float variance = xsimd::hadd(squares[0] + squares[1]);
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
inline void norm_rows(const NormWeights& n, const float* x, const float* residual, float* y,
                      const RoundedRows& rounded, size_t tokens) {
    for (size_t t = 0; t < tokens; ++t) {
        float* row = y + t * n.hidden;
        norm_row<Arch>(n, x + t * n.hidden, residual != nullptr ? residual + t * n.hidden : nullptr, row);
        if (rounded.type != TensorType::f32)
            round_row<Arch>(rounded.type, true, row, n.hidden,
                            rounded.rows + t * n.hidden * bytes_of(rounded.type),
                            rounded.type == TensorType::s8 ? rounded.scale + t : nullptr);
    }
}

}  // namespace
}  // namespace espalier
