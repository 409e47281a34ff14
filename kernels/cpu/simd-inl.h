// What the SIMD kernels of every instruction set share, written once over xsimd. Included only by files that
// are compiled for one instruction set. Everything is a template on the architecture or lies in an unnamed
// namespace: code compiled with wide instructions must never be picked by the linker for a baseline caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <xsimd/xsimd.hpp>

#if defined(__AVX512F__)
// xsimd 8.1 multiplies and then adds on AVX-512, in two instructions: a function that is no template goes
// before its.
namespace xsimd {
[[gnu::always_inline]] static inline batch<float, avx512bw> fma(const batch<float, avx512bw>& a,
                                                                const batch<float, avx512bw>& b,
                                                                const batch<float, avx512bw>& c) noexcept {
    return _mm512_fmadd_ps(a, b, c);
}
}  // namespace xsimd
#endif

namespace espalier {
namespace {

template <class Arch>
using Floats = xsimd::batch<float, Arch>;

template <class Arch>
inline constexpr size_t lanes = Floats<Arch>::size;

template <class Arch>
using Integers = xsimd::batch<int32_t, Arch>;

// The same bits as a vector of another type. Not xsimd's: on NEON its is a function that GCC 12 calls, in
// loops too.
template <class To, class From>
[[gnu::always_inline]] inline To same_bits(From value) {
    return To(
        __builtin_bit_cast(typename To::register_type, static_cast<typename From::register_type>(value)));
}

#if defined(__aarch64__)
using NeonArch = xsimd::neon64;
#elif defined(__ARM_NEON)
using NeonArch = xsimd::neon;
#endif

#if defined(__ARM_NEON)
// Neighbours added, those of `a` first.
inline float32x4_t sums_of_neighbours(float32x4_t a, float32x4_t b) {
#if defined(__aarch64__)
    return vpaddq_f32(a, b);
#else
    return vcombine_f32(vpadd_f32(vget_low_f32(a), vget_high_f32(a)),
                        vpadd_f32(vget_low_f32(b), vget_high_f32(b)));
#endif
}
inline int32x4_t sums_of_neighbours(int32x4_t a, int32x4_t b) {
#if defined(__aarch64__)
    return vpaddq_s32(a, b);
#else
    return vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)),
                        vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
#endif
}
#endif

// AVX-512's products of pairs and quads. As assembly: GCC 12 copies or spills the sum around the intrinsics.
#if defined(__AVX512BF16__)
[[gnu::always_inline]] inline __m512 add_pair_products(__m512 sum, __m512i a, __m512i b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "vm"(b));
    return sum;
}
#endif
#if defined(__AVX512VNNI__)
// unsigned times signed
[[gnu::always_inline]] inline __m512i add_quad_products(__m512i sum, __m512i a, __m512i b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "vm"(b));
    return sum;
}
#endif
#if defined(__AVX2__)
// 16-bit products, two neighbours added: exact.
template <class Arch>
inline Integers<Arch> sums_of_pairs(Integers<Arch> a, Integers<Arch> b) {
#if defined(__AVX512BW__)
    return Integers<Arch>(_mm512_madd_epi16(a, b));
#else
    return Integers<Arch>(_mm256_madd_epi16(a, b));
#endif
}
#endif

// The sum of `length` 8-bit values, which products with rows moved up by an offset take off again.
template <class Arch>
[[gnu::noinline]] int32_t sum_of_bytes(const int8_t* x, size_t length) {
    int32_t sum = 0;
    size_t i = 0;
#if defined(__AVX512VNNI__)
    Integers<Arch> quads(0);
    for (; i + 64 <= length; i += 64)
        quads = add_quad_products(quads, _mm512_set1_epi8(1), _mm512_loadu_si512(x + i));
    sum = xsimd::hadd(quads);
#elif defined(__ARM_FEATURE_DOTPROD)
    int32x4_t quads = vdupq_n_s32(0);
    for (; i + 16 <= length; i += 16)
        quads = vdotq_s32(quads, vdupq_n_s8(1), vld1q_s8(x + i));
    sum = vaddvq_s32(quads);
#endif
    for (; i < length; ++i)
        sum += x[i];
    return sum;
}

// To nearest even; a NaN stays one: its low bits must not carry into the exponent.
inline uint16_t rounded_to_bf16(float value) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return static_cast<uint16_t>((nan ? bits | 0x400000u : rounded) >> 16);
}

// The first `count` < lanes values, zeros behind.
template <class Arch>
inline Floats<Arch> load_partial(const float* source, size_t count) {
    alignas(64) float values[lanes<Arch>] = {};
    for (size_t i = 0; i < count; ++i)
        values[i] = source[i];
    return Floats<Arch>::load_aligned(values);
}

template <class Arch>
inline void store_partial(float* target, Floats<Arch> value, size_t count) {
    alignas(64) float values[lanes<Arch>];
    value.store_aligned(values);
    for (size_t i = 0; i < count; ++i)
        target[i] = values[i];
}

// Four accumulators hide the latency of a fused multiply-add (4 cycles, two a cycle on two 512-bit halves).
template <class Arch>
inline float dot(const float* a, const float* b, size_t count) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    V s0(0.0F), s1(0.0F), s2(0.0F), s3(0.0F);
    size_t i = 0;
    for (; i + 4 * w <= count; i += 4 * w) {
        s0 = xsimd::fma(V::load_unaligned(a + i), V::load_unaligned(b + i), s0);
        s1 = xsimd::fma(V::load_unaligned(a + i + w), V::load_unaligned(b + i + w), s1);
        s2 = xsimd::fma(V::load_unaligned(a + i + 2 * w), V::load_unaligned(b + i + 2 * w), s2);
        s3 = xsimd::fma(V::load_unaligned(a + i + 3 * w), V::load_unaligned(b + i + 3 * w), s3);
    }
    for (; i + w <= count; i += w)
        s0 = xsimd::fma(V::load_unaligned(a + i), V::load_unaligned(b + i), s0);
    if (i < count)
        s1 = xsimd::fma(load_partial<Arch>(a + i, count - i), load_partial<Arch>(b + i, count - i), s1);
    return xsimd::hadd((s0 + s1) + (s2 + s3));
}

}  // namespace
}  // namespace espalier
