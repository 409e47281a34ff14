// What the attention kernels on bfloat16 and on 8 bits share. AVX-512 alone: packing is made of its shuffles.
// Packing fetches the next head's queries, keys and values, which lie scattered, a few cache lines a token.
#pragma once

#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

using WideArch = xsimd::avx512bw;

// Columns of a packed panel: two vectors. Its layout is [k / numbers in a word][columns]; the last panel may
// have one vector.
inline constexpr size_t attention_columns = 32;

// 16 x 16 words, their rows and columns exchanged: two rounds within quarters of a register, two between
// them.
[[gnu::always_inline]] inline void transpose_words(__m512i (&m)[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (size_t i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(m[i], m[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(m[i], m[i + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 16; i += 4) {
        m[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        m[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        m[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        m[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(m[i], m[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(m[i], m[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(m[i + 8], m[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(m[i + 8], m[i + 12], 0xdd);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
        m[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        m[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

// 2^x for x <= 0 with an error of 1e-4 of it, a twentieth of what rounding to bfloat16 takes; else as
// power_of_two.
[[gnu::always_inline]] inline Floats<WideArch> rough_power_of_two(Floats<WideArch> x) {
    using V = Floats<WideArch>;
    const V bounded = xsimd::max(V(-126.0F), x);
    const V whole = xsimd::nearbyint(bounded), part = bounded - whole;
    V p(5.517155e-2F);
    p = xsimd::fma(p, part, V(2.4261136e-1F));
    p = xsimd::fma(p, part, V(6.9326102e-1F));
    p = xsimd::fma(p, part, V(9.9992806e-1F));
    return V(_mm512_scalef_ps(p, whole));
}

}  // namespace
}  // namespace espalier
