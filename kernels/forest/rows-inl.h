// Rows of a forest in their stored type: what a vector of a row times a vector of x is, and how sums across
// lanes are taken. RowOps<Arch, type> is the best that the flags of the including file allow:
//
//   f32    fused multiply-add
//   bf16   AVX512_BF16, Arm's BF16: two products a lane and instruction; else widened to float32
//   s8     AVX512_VNNI or DotProd: four products a lane and instruction; else 16-bit products added in pairs.
//          The integer sums are exact, and so the same on every instruction set, for rows of up to
//          2^31 / (255 * 127) values.
//
// Intrinsics, since xsimd 8.1 has neither these products nor loads that widen.
#pragma once

#include "base/types.h"
#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

// Sums across lanes, always four at a time and in one order, so that a sum does not depend on its neighbours.

#if defined(__AVX512F__)
inline void sum_lanes(__m512 a, __m512 b, __m512 c, __m512 d, float* out) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    const __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
inline void sum_lanes(__m512i a, __m512i b, __m512i c, __m512i d, int32_t* out) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
#elif defined(__AVX2__)
inline void sum_lanes(__m256 a, __m256 b, __m256 c, __m256 d, float* out) {
    const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
inline void sum_lanes(__m256i a, __m256i b, __m256i c, __m256i d, int32_t* out) {
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
}
#elif defined(__ARM_NEON)
inline void sum_lanes(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d, float* out) {
    vst1q_f32(out, sums_of_neighbours(sums_of_neighbours(a, b), sums_of_neighbours(c, d)));
}
inline void sum_lanes(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d, int32_t* out) {
    vst1q_s32(out, sums_of_neighbours(sums_of_neighbours(a, b), sums_of_neighbours(c, d)));
}
#endif

// Loads that widen to float32, lanes<Arch> values.

#if defined(__AVX512F__)
inline __m512 load_widened(const uint16_t* source) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
}
inline __m512 load_widened(const int8_t* source) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(packed));
}
#elif defined(__AVX2__)
inline __m256 load_widened(const uint16_t* source) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
}
inline __m256 load_widened(const int8_t* source) {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(packed));
}
#elif defined(__ARM_NEON)
inline float32x4_t load_widened(const uint16_t* source) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(source), 16));
}
inline float32x4_t load_widened(const int8_t* source) {
    int32_t packed = 0;
    __builtin_memcpy(&packed, source, sizeof(packed));
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(packed));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
#endif

// Products. Value: the stored number. step: values of a vector. Sum: a vector of int32 or float32.

template <class Arch, TensorType type>
struct RowOps;

// Fused multiply-adds on float32, which is what there is without products of a narrower type.
template <class Arch>
struct FloatOps {
    using Vector = Floats<Arch>;
    using Sum = Floats<Arch>;
    static constexpr size_t step = lanes<Arch>;
    static Sum zero() { return Sum(0.0F); }
    static Sum multiply_add(Vector row, Vector x, Sum sum) { return xsimd::fma(row, x, sum); }
    static Sum add(Sum a, Sum b) { return a + b; }
};

template <class Arch>
struct RowOps<Arch, TensorType::f32> : FloatOps<Arch> {
    using Value = float;
    static Floats<Arch> load_row(const float* row) { return Floats<Arch>::load_unaligned(row); }
    static Floats<Arch> load_x(const float* x) { return load_row(x); }
};

#if defined(__AVX512BF16__)
template <class Arch>
struct RowOps<Arch, TensorType::bf16> {
    using Value = uint16_t;
    using Vector = __m512i;
    using Sum = __m512;
    static constexpr size_t step = 32;
    static Vector load_row(const uint16_t* row) { return _mm512_loadu_si512(row); }
    static Vector load_x(const uint16_t* x) { return _mm512_loadu_si512(x); }
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum multiply_add(Vector row, Vector x, Sum sum) { return add_pair_products(sum, row, x); }
    static Sum add(Sum a, Sum b) { return _mm512_add_ps(a, b); }
};
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
template <class Arch>
struct RowOps<Arch, TensorType::bf16> {
    using Value = uint16_t;
    using Vector = bfloat16x8_t;
    using Sum = float32x4_t;
    static constexpr size_t step = 8;
    static Vector load_row(const uint16_t* row) { return vreinterpretq_bf16_u16(vld1q_u16(row)); }
    static Vector load_x(const uint16_t* x) { return load_row(x); }
    static Sum zero() { return vdupq_n_f32(0); }
    static Sum multiply_add(Vector row, Vector x, Sum sum) { return vbfdotq_f32(sum, row, x); }
    static Sum add(Sum a, Sum b) { return vaddq_f32(a, b); }
};
#else
template <class Arch>
struct RowOps<Arch, TensorType::bf16> : FloatOps<Arch> {
    using Value = uint16_t;
    static Floats<Arch> load_row(const uint16_t* row) { return load_widened(row); }
    static Floats<Arch> load_x(const uint16_t* x) { return load_row(x); }
};
#endif

#if defined(__AVX512VNNI__)
// vpdpbusd multiplies unsigned by signed: the row is moved up by 128 (its top bit turned), and the caller
// takes 128 * (sum of x) off again.
template <class Arch>
struct RowOps<Arch, TensorType::s8> {
    using Value = int8_t;
    using Vector = __m512i;
    using Sum = __m512i;
    static constexpr size_t step = 64;
    static constexpr int32_t row_offset = 128;
    static Vector load_row(const int8_t* row) {
        return _mm512_xor_si512(_mm512_loadu_si512(row), _mm512_set1_epi8(static_cast<char>(0x80)));
    }
    static Vector load_x(const int8_t* x) { return _mm512_loadu_si512(x); }
    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum multiply_add(Vector row, Vector x, Sum sum) { return add_quad_products(sum, row, x); }
    static Sum add(Sum a, Sum b) { return _mm512_add_epi32(a, b); }
};
#elif defined(__AVX2__)
template <class Arch>
struct RowOps<Arch, TensorType::s8> {
    using Value = int8_t;
    using Vector = Integers<Arch>;  // two 16-bit values in each
    using Sum = Integers<Arch>;
    static constexpr size_t step = 2 * lanes<Arch>;
    static constexpr int32_t row_offset = 0;
    static Vector load_row(const int8_t* row) {
#if defined(__AVX512F__)
        return Vector(_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row))));
#else
        return Vector(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row))));
#endif
    }
    static Vector load_x(const int8_t* x) {
        return load_row(x);
    }
    static Sum zero() {
        return Sum(0);
    }
    static Sum multiply_add(Vector row, Vector x, Sum sum) {
        return sum + sums_of_pairs<Arch>(row, x);
    }
    static Sum add(Sum a, Sum b) {
        return a + b;
    }
};
#elif defined(__ARM_NEON)
template <class Arch>
struct RowOps<Arch, TensorType::s8> {
    using Value = int8_t;
    using Vector = int8x16_t;
    using Sum = int32x4_t;
    static constexpr size_t step = 16;
    static constexpr int32_t row_offset = 0;
    static Vector load_row(const int8_t* row) { return vld1q_s8(row); }
    static Vector load_x(const int8_t* x) { return vld1q_s8(x); }
    static Sum zero() { return vdupq_n_s32(0); }
    static Sum multiply_add(Vector row, Vector x, Sum sum) {
#if defined(__ARM_FEATURE_DOTPROD)
        return vdotq_s32(sum, row, x);
#else
        sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(row), vget_low_s8(x)));
        return vpadalq_s16(sum, vmull_s8(vget_high_s8(row), vget_high_s8(x)));
#endif
    }
    static Sum add(Sum a, Sum b) {
        return vaddq_s32(a, b);
    }
};
#endif

// One vector of every product, at column `at`, into partial sum `part`.
template <class Ops, size_t count, bool shared>
[[gnu::always_inline]] inline void add_products(const typename Ops::Value* const* rows,
                                                const typename Ops::Value* const* x, size_t at, size_t part,
                                                typename Ops::Sum (&sum)[count][4]) {
    if constexpr (shared) {
        const auto row = Ops::load_row(rows[0] + at);
#pragma GCC unroll 4
        for (size_t t = 0; t < count; ++t)
            sum[t][part] = Ops::multiply_add(row, Ops::load_x(x[t] + at), sum[t][part]);
    } else {
#pragma GCC unroll 4
        for (size_t t = 0; t < count; ++t)
            sum[t][part] =
                Ops::multiply_add(Ops::load_row(rows[t] + at), Ops::load_x(x[t] + at), sum[t][part]);
    }
}

// Dot products of `count` vectors of x, with one row (whose loads they share) or a row each. Every product
// has four partial sums (a fused multiply-add takes 4 cycles, vdpbf16ps 6), filled in the same order whatever
// `count` and `shared` are.
template <class Ops, size_t count, bool shared, class Out>
inline void dots(const typename Ops::Value* const* rows, const typename Ops::Value* const* x, size_t length,
                 Out* out) {
    using Value = typename Ops::Value;
    constexpr size_t step = Ops::step;
    typename Ops::Sum sum[count][4];
#pragma GCC unroll 4
    for (size_t t = 0; t < count; ++t)
        sum[t][0] = sum[t][1] = sum[t][2] = sum[t][3] = Ops::zero();
    size_t i = 0;
    for (; i + 4 * step <= length; i += 4 * step) {
#pragma GCC unroll 4
        for (size_t part = 0; part < 4; ++part)
            add_products<Ops, count, shared>(rows, x, i + part * step, part, sum);
    }
    for (; i + step <= length; i += step)
        add_products<Ops, count, shared>(rows, x, i, 0, sum);
    if (i < length) {
        alignas(64) Value last_row[step] = {}, last_x[step] = {};
#pragma GCC unroll 4
        for (size_t t = 0; t < count; ++t) {
            __builtin_memcpy(last_row, rows[shared ? 0 : t] + i, (length - i) * sizeof(Value));
            __builtin_memcpy(last_x, x[t] + i, (length - i) * sizeof(Value));
            sum[t][1] = Ops::multiply_add(Ops::load_row(last_row), Ops::load_x(last_x), sum[t][1]);
        }
    }
    typename Ops::Sum whole[4];
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; ++t) {
        const size_t from = t < count ? t : 0;
        whole[t] = Ops::add(Ops::add(sum[from][0], sum[from][1]), Ops::add(sum[from][2], sum[from][3]));
    }
    Out all[4];
    sum_lanes(whole[0], whole[1], whole[2], whole[3], all);
#pragma GCC unroll 4
    for (size_t t = 0; t < count; ++t)
        out[t] = all[t];
}

}  // namespace
}  // namespace espalier
