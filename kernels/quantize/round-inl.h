// Float32 rounded to bfloat16 and to 8 bits; specification: quantize_scalar.cpp.
#pragma once

#include <bit>
#include <cmath>

#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

template <class Arch>
inline void round_to_bfloat(const float* values, size_t count, uint16_t* target) {
    for (size_t i = 0; i < count; ++i)
        target[i] = rounded_to_bf16(values[i]);
}

// lanes<Arch> integers of -127 to 127.
template <class Arch>
inline void store_bytes(Integers<Arch> values, int8_t* target) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm512_cvtepi32_epi8(values));
#else
    alignas(64) int32_t wide[lanes<Arch>];
    values.store_aligned(wide);
    for (size_t i = 0; i < lanes<Arch>; ++i)
        target[i] = static_cast<int8_t>(wide[i]);
#endif
}

// Sizes of numbers as bits, whose order is theirs: NaN is above infinity there, and that above all numbers.
template <class Arch>
inline Integers<Arch> size_bits(Floats<Arch> values) {
    return xsimd::bitwise_cast<Integers<Arch>>(values) & Integers<Arch>(0x7fffffff);
}
template <class Arch>
inline int32_t largest_lane(Integers<Arch> values) {
    alignas(64) int32_t of_lane[lanes<Arch>];
    values.store_aligned(of_lane);
    int32_t largest = 0;
    for (const int32_t size : of_lane)
        largest = size > largest ? size : largest;
    return largest;
}

// What 8-bit values of one scale are made with, from the bits of the largest size among them. Values that
// are not finite give scale NaN and zeros. Below 1e-35 a step's inverse would overflow: zeros.
struct ByteSteps {
    bool finite;
    float scale, steps;

    explicit ByteSteps(int32_t largest) : finite(largest < 0x7f800000), scale(NAN), steps(0) {
        const float most = std::bit_cast<float>(largest);
        if (!finite) return;
        scale = most / 127.0F;
        if (most > 1e-35F) steps = 127.0F / most;
    }
};

// One row, with one scale, which it gives back.
template <class Arch>
inline float round_to_bytes(const float* x, size_t count, int8_t* target) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    Integers<Arch> sizes(0);
    size_t i = 0;
    for (; i + w <= count; i += w)
        sizes = xsimd::max(sizes, size_bits<Arch>(V::load_unaligned(x + i)));
    if (i < count) sizes = xsimd::max(sizes, size_bits<Arch>(load_partial<Arch>(x + i, count - i)));
    const ByteSteps bytes(largest_lane<Arch>(sizes));
    const V steps(bytes.steps);
    const auto rounded = [&](V values) {
        return xsimd::to_int(xsimd::nearbyint((bytes.finite ? values : V(0.0F)) * steps));
    };
    for (i = 0; i + w <= count; i += w)
        store_bytes<Arch>(rounded(V::load_unaligned(x + i)), target + i);
    if (i < count) {
        int8_t last[w];
        store_bytes<Arch>(rounded(load_partial<Arch>(x + i, count - i)), last);
        __builtin_memcpy(target + i, last, count - i);
    }
    return bytes.scale;
}

template <class Arch>
inline void round_rows(TensorType type, const float* x, size_t rows, size_t columns, void* y, float* scale) {
    for (size_t r = 0; r < rows; ++r) {
        const float* row = x + r * columns;
        if (type == TensorType::s8) {
            scale[r] = round_to_bytes<Arch>(row, columns, static_cast<int8_t*>(y) + r * columns);
        } else {
            round_to_bfloat<Arch>(row, columns, static_cast<uint16_t*>(y) + r * columns);
        }
    }
}

}  // namespace
}  // namespace espalier
