// The norms on vectors; specification: norm_scalar.cpp.
#pragma once

#include <algorithm>
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

// A row of y on its way: x + residual, whose mean and scale are found, then normed. Each step waits for the
// one before, so rows take them a few at a time.
template <class Arch, bool has_bias>
class NormRow {
   public:
    using V = Floats<Arch>;

    // y = x + residual, and its mean.
    void begin(const NormWeights& n, const float* x, const float* residual, float* y) {
        y_ = y;
        // Two sums in turn, which hide half of an addition's latency.
        V sum[2] = {V(0.0F), V(0.0F)};
        const size_t whole = n.hidden / w * w;
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
        mean_ = n.rms ? 0.0F : total / static_cast<float>(n.hidden);
    }

    void find_scale(const NormWeights& n) {
        const size_t whole = n.hidden / w * w;
        const V mean(mean_);
        V squares[2] = {V(0.0F), V(0.0F)};
        const auto add_square = [&](size_t i, V& to) {
            const V centred = V::load_unaligned(y_ + i) - mean;
            to = xsimd::fma(centred, centred, to);
        };
        in_turns<w>(
            whole, [&](size_t i) { add_square(i, squares[0]); },
            [&](size_t i) { add_square(i, squares[1]); });
        float variance = xsimd::hadd(squares[0] + squares[1]);
        for (size_t i = whole; i < n.hidden; ++i)
            variance += (y_[i] - mean_) * (y_[i] - mean_);
        scale_ = 1.0F / std::sqrt(variance / static_cast<float>(n.hidden) + n.epsilon);
    }

    // What turns y's vector from i on into what it shall be, and gives it.
    [[gnu::always_inline]] auto finisher(const NormWeights& n) const {
        return [ y = y_, weight = n.weight, bias = n.bias, mean = V(mean_), scale = V(scale_) ](size_t i)
            __attribute__((always_inline)) {
            const V value =
                xsimd::fma((V::load_unaligned(y + i) - mean) * scale, V::load_unaligned(weight + i),
                           has_bias ? V::load_unaligned(bias + i) : V(0.0F));
            value.store_unaligned(y + i);
            return value;
        };
    }

    void finish(const NormWeights& n) const {
        const auto finish_vector = finisher(n);
        const size_t whole = n.hidden / w * w, tail = n.hidden - whole;
        for (size_t i = 0; i < whole; i += w)
            finish_vector(i);
        if (tail == 0) return;
        const V bias = has_bias ? load_partial<Arch>(n.bias + whole, tail) : V(0.0F);
        const V centred = load_partial<Arch>(y_ + whole, tail) - V(mean_);
        store_partial<Arch>(y_ + whole,
                            xsimd::fma(centred * V(scale_), load_partial<Arch>(n.weight + whole, tail), bias),
                            tail);
    }

   private:
    static constexpr size_t w = lanes<Arch>;
    float* y_;
    float mean_, scale_;
};

template <class Arch, bool has_bias>
inline void norm_rows_as(const NormWeights& n, const float* x, const float* residual, float* y,
                         const RoundedRows& rounded, size_t tokens) {
    // Encoders' norms have a bias; for others a second copy of it all would be code for nobody's sake.
    const bool turns = has_bias && rounded.type == TensorType::s8 && rotation_span(n.hidden) > 1;
    RotatedRows<Arch> turned(turns ? n.hidden : rotation_limit);
    const size_t at_once = turns ? turned.at_once() : turned.most;
    NormRow<Arch, has_bias> row[turned.most];
    for (size_t first = 0; first < tokens; first += at_once) {
        const size_t count = std::min(at_once, tokens - first), start = first * n.hidden;
        for (size_t r = 0; r < count; ++r) {
            const size_t at = start + r * n.hidden;
            row[r].begin(n, x + at, residual != nullptr ? residual + at : nullptr, y + at);
        }
        for (size_t r = 0; r < count; ++r)
            row[r].find_scale(n);
        std::byte* bytes = rounded.rows + start * bytes_of(rounded.type);
        if (has_bias && turns) {
            // On the way out of the registers that it is normed in.
            for (size_t r = 0; r < count; ++r)
                turned.turn(r, row[r].finisher(n));
            turned.store(count, reinterpret_cast<int8_t*>(bytes), rounded.scale + first);
            continue;
        }
        for (size_t r = 0; r < count; ++r)
            row[r].finish(n);
        if (rounded.type != TensorType::f32)
            round_rows<Arch>(rounded.type, true, y + start, count, n.hidden, bytes,
                             rounded.type == TensorType::s8 ? rounded.scale + first : nullptr);
    }
}

template <class Arch>
inline void norm_rows(const NormWeights& n, const float* x, const float* residual, float* y,
                      const RoundedRows& rounded, size_t tokens) {
    const auto run = n.bias != nullptr ? norm_rows_as<Arch, true> : norm_rows_as<Arch, false>;
    run(n, x, residual, y, rounded, tokens);
}

}  // namespace
}  // namespace espalier
