// Float32 rounded to bfloat16 and to 8 bits; specification: quantize_scalar.cpp.
#pragma once

#include <algorithm>
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

// One vector, with the bits of rounded_to_bf16 (where the instruction does it, numbers below the normal ones
// become zeros).
template <class Arch>
[[gnu::always_inline]] inline void store_bfloats(Floats<Arch> values, uint16_t* target) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh(values);
    __builtin_memcpy(target, &rounded, sizeof(rounded));
#elif defined(__AVX512F__)
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

// Four vectors of integers of -127 to 127, in one store where the instruction set narrows whole registers.
template <class Arch>
[[gnu::always_inline]] inline void store_bytes(const Integers<Arch> (&v)[4], int8_t* target) {
#if defined(__AVX512F__)
    // Narrowed lane of 128 bits by lane: groups of four bytes stand in the order of lanes, then of vectors.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    _mm512_storeu_si512(target, _mm512_permutexvar_epi32(order, bytes));
#elif defined(__AVX2__)
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm256_permutevar8x32_epi32(bytes, order));
#elif defined(__ARM_NEON)
    const auto shorts = [](int32x4_t a, int32x4_t b) { return vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)); };
    vst1q_s8(target, vcombine_s8(vqmovn_s16(shorts(v[0], v[1])), vqmovn_s16(shorts(v[2], v[3]))));
#else
#error "no way to narrow integers for this instruction set"
#endif
}

// One.
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

template <class Arch>
inline int32_t largest_lane(Integers<Arch> values) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32(values);
#else
    alignas(64) int32_t of_lane[lanes<Arch>];
    values.store_aligned(of_lane);
    int32_t largest = 0;
    for (const int32_t size : of_lane)
        largest = size > largest ? size : largest;
    return largest;
#endif
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

// To the nearest, as integers; an even one of two.
template <class Arch>
[[gnu::always_inline]] inline Integers<Arch> nearest(Floats<Arch> values) {
#if defined(__AVX512F__)
    return _mm512_cvtps_epi32(values);
#elif defined(__AVX2__)
    return _mm256_cvtps_epi32(values);
#else
    return xsimd::to_int(xsimd::nearbyint(values));
#endif
}

// One row by its steps. sizes: the bits of its largest, lane by lane. Gives its scale back.
template <class Arch>
inline float store_row(const float* x, size_t count, Integers<Arch> sizes, int8_t* target) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const ByteSteps bytes(largest_lane<Arch>(sizes));
    if (!bytes.finite) {
        __builtin_memset(target, 0, count);
        return bytes.scale;
    }
    const V steps(bytes.steps);
    const auto rounded = [&](size_t i) { return nearest<Arch>(V::load_unaligned(x + i) * steps); };
    size_t i = 0;
    for (; i + 4 * w <= count; i += 4 * w) {
        const Integers<Arch> four[4] = {rounded(i), rounded(i + w), rounded(i + 2 * w), rounded(i + 3 * w)};
        store_bytes<Arch>(four, target + i);
    }
    for (; i + w <= count; i += w)
        store_bytes<Arch>(rounded(i), target + i);
    if (i < count) {
        int8_t last[w];
        store_bytes<Arch>(nearest<Arch>(load_partial<Arch>(x + i, count - i) * steps), last);
        __builtin_memcpy(target + i, last, count - i);
    }
    return bytes.scale;
}

template <class Arch>
inline float round_to_bytes(const float* x, size_t count, int8_t* target) {
    constexpr size_t w = lanes<Arch>;
    Integers<Arch> sizes(0);
    size_t i = 0;
    for (; i + w <= count; i += w)
        sizes = xsimd::max(sizes, size_bits<Arch>(Floats<Arch>::load_unaligned(x + i)));
    if (i < count) sizes = xsimd::max(sizes, size_bits<Arch>(load_partial<Arch>(x + i, count - i)));
    return store_row<Arch>(x, count, sizes, target);
}

// Rows of `columns` that are turned and then rounded a few at a time: while the largest sizes of one are
// found, which no row can go on without, the next is turned.
template <class Arch>
class RotatedRows {
   public:
    static constexpr size_t most = 4;

    explicit RotatedRows(size_t columns)
        : columns_(columns), at_once_(std::min(most, rotation_limit / columns)) {}
    size_t at_once() const { return at_once_; }

    // Row r of those at once: value(i) is its vector from i on.
    template <class Value>
    [[gnu::always_inline]] void turn(size_t r, const Value& value) {
        sizes_[r] = rotate_values<Arch>(value, columns_, turned_ + r * columns_);
    }
    // The first `count` of them; scale: [count].
    void store(size_t count, int8_t* target, float* scale) const {
        for (size_t r = 0; r < count; ++r)
            scale[r] = store_row<Arch>(turned_ + r * columns_, columns_, sizes_[r], target + r * columns_);
    }

   private:
    size_t columns_, at_once_;
    Integers<Arch> sizes_[most];
    alignas(64) float turned_[rotation_limit];
};

template <class Arch>
[[gnu::noinline]] void round_rotated(const float* x, size_t rows, size_t columns, int8_t* y, float* scale) {
    RotatedRows<Arch> turned(columns);
    for (size_t first = 0; first < rows; first += turned.at_once()) {
        const size_t count = std::min(turned.at_once(), rows - first);
        for (size_t r = 0; r < count; ++r) {
            const float* row = x + (first + r) * columns;
            turned.turn(r, [row](size_t i) { return Floats<Arch>::load_unaligned(row + i); });
        }
        turned.store(count, y + first * columns, scale + first);
    }
}

template <class Arch>
inline void round_rows(TensorType type, bool rotated, const float* x, size_t rows, size_t columns, void* y,
                       float* scale) {
    if (type == TensorType::bf16) {
        round_to_bfloat<Arch>(x, rows * columns, static_cast<uint16_t*>(y));
    } else if (rotated && rotation_span(columns) > 1) {
        round_rotated<Arch>(x, rows, columns, static_cast<int8_t*>(y), scale);
    } else {
        for (size_t r = 0; r < rows; ++r)
            scale[r] = round_to_bytes<Arch>(x + r * columns, columns, static_cast<int8_t*>(y) + r * columns);
    }
}

}  // namespace
}  // namespace espalier
