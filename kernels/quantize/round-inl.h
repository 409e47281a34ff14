// Float32 rounded to bfloat16 and to 8 bits; specification: quantize_scalar.cpp.
#pragma once

#include <bit>
#include <cmath>

#include "kernels/cpu/simd-inl.h"
#include "kernels/quantize/rotate-inl.h"

namespace espalier {
namespace {

template <class Arch>
inline void round_to_bfloat(const float* values, size_t count, uint16_t* target) {
    for (size_t i = 0; i < count; ++i)
        target[i] = rounded_to_bf16(values[i]);
}

// One vector, with the bits of rounded_to_bf16.
template <class Arch>
[[gnu::always_inline]] inline void store_bfloats(Floats<Arch> values, uint16_t* target) {
#if defined(__AVX512F__)
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
#else
    alignas(64) float wide[lanes<Arch>];
    values.store_aligned(wide);
    round_to_bfloat<Arch>(wide, lanes<Arch>, target);
#endif
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
    return same_bits<Integers<Arch>>(values) & Integers<Arch>(0x7fffffff);
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
inline void round_row(TensorType type, bool rotated, const float* x, size_t columns, void* y, float* scale) {
    if (type == TensorType::s8) {
        alignas(64) float turned[rotation_limit];
        if (rotated && rotation_span(columns) > 1) {
            rotate_row<Arch>(x, columns, turned);
            x = turned;
        }
        *scale = round_to_bytes<Arch>(x, columns, static_cast<int8_t*>(y));
    } else {
        round_to_bfloat<Arch>(x, columns, static_cast<uint16_t*>(y));
    }
}

template <class Arch>
inline void round_rows(TensorType type, bool rotated, const float* x, size_t rows, size_t columns, void* y,
                       float* scale) {
    for (size_t r = 0; r < rows; ++r)
        round_row<Arch>(type, rotated, x + r * columns, columns,
                        static_cast<std::byte*>(y) + r * columns * bytes_of(type),
                        type == TensorType::s8 ? scale + r : nullptr);
}

}  // namespace
}  // namespace espalier
