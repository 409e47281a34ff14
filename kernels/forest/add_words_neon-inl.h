// The output of a token where NEON multiplies words (add_rows-inl.h): pairs of bfloat16 by bfdot where the
// flags of the including file allow BF16, quads of bytes by sdot where they allow DotProd. Rows are zipped as
// they pass; columns stay in order.
#pragma once

#include "kernels/forest/add_rows-inl.h"

namespace espalier {
namespace {

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
// Two rows of 16 columns, value by value: pairs[v] holds those of columns 4 v to 4 v + 3.
[[gnu::always_inline]] inline void interleave(const uint16_t* const* rows, size_t i,
                                              bfloat16x8_t (&pairs)[4]) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
        const uint16x8_t a = vld1q_u16(rows[0] + i + 8 * half), b = vld1q_u16(rows[1] + i + 8 * half);
        pairs[2 * half] = vreinterpretq_bf16_u16(vzip1q_u16(a, b));
        pairs[2 * half + 1] = vreinterpretq_bf16_u16(vzip2q_u16(a, b));
    }
}

// `blocks` times 16 columns from i on.
template <size_t tokens, size_t blocks>
inline void add_words(const OutputRow* out, const WordPath<uint16_t>& path, size_t i) {
    const size_t words = path.trees * path.words_a_tree;
    float32x4_t sum[tokens][blocks][4];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b)
            sum[t][b][0] = sum[t][b][1] = sum[t][b][2] = sum[t][b][3] = vdupq_n_f32(0);
    }
    for (size_t n = 0; n < words; ++n) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b) {
            bfloat16x8_t pairs[4];
            interleave(path.rows + 2 * n, i + b * word_columns, pairs);
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; ++t) {
                const bfloat16x8_t factor =
                    vreinterpretq_bf16_u32(vld1q_dup_u32(path.words + n * path.lanes + t));
#pragma GCC unroll 4
                for (size_t v = 0; v < 4; ++v)
                    sum[t][b][v] = vbfdotq_f32(sum[t][b][v], pairs[v], factor);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 4
            for (size_t v = 0; v < 4; ++v)
                put<NeonArch>(out[t], i + b * word_columns + 4 * v, 4, sum[t][b][v]);
        }
    }
}
#endif

#if defined(__ARM_FEATURE_DOTPROD)
// Four rows of 16 columns, value by value: quads[v] holds those of columns 4 v to 4 v + 3.
[[gnu::always_inline]] inline void interleave(const int8_t* const* rows, size_t i, int8x16_t (&quads)[4]) {
    const int8x16_t r0 = vld1q_s8(rows[0] + i), r1 = vld1q_s8(rows[1] + i), r2 = vld1q_s8(rows[2] + i),
                    r3 = vld1q_s8(rows[3] + i);
    const int16x8_t low01 = vreinterpretq_s16_s8(vzip1q_s8(r0, r1)),
                    high01 = vreinterpretq_s16_s8(vzip2q_s8(r0, r1)),
                    low23 = vreinterpretq_s16_s8(vzip1q_s8(r2, r3)),
                    high23 = vreinterpretq_s16_s8(vzip2q_s8(r2, r3));
    quads[0] = vreinterpretq_s8_s16(vzip1q_s16(low01, low23));
    quads[1] = vreinterpretq_s8_s16(vzip2q_s16(low01, low23));
    quads[2] = vreinterpretq_s8_s16(vzip1q_s16(high01, high23));
    quads[3] = vreinterpretq_s8_s16(vzip2q_s16(high01, high23));
}

// sdot multiplies signed by signed: sums start with nothing. `blocks` times 16 columns from i on.
template <size_t tokens, size_t blocks>
inline void add_words(const OutputRow* out, const WordPath<int8_t>& path, size_t i) {
    float32x4_t y[tokens][blocks][4];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b)
            y[t][b][0] = y[t][b][1] = y[t][b][2] = y[t][b][3] = vdupq_n_f32(0);
    }
    for (size_t k = 0; k < path.trees; ++k) {
        int32x4_t sum[tokens][blocks][4];
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; ++b)
                sum[t][b][0] = sum[t][b][1] = sum[t][b][2] = sum[t][b][3] = vdupq_n_s32(0);
        }
        for (size_t word = k * path.words_a_tree; word < (k + 1) * path.words_a_tree; ++word) {
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; ++b) {
                int8x16_t quads[4];
                interleave(path.rows + 4 * word, i + b * word_columns, quads);
#pragma GCC unroll 4
                for (size_t t = 0; t < tokens; ++t) {
                    const int8x16_t factor =
                        vreinterpretq_s8_u32(vld1q_dup_u32(path.words + word * path.lanes + t));
#pragma GCC unroll 4
                    for (size_t v = 0; v < 4; ++v)
                        sum[t][b][v] = vdotq_s32(sum[t][b][v], quads[v], factor);
                }
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
            const float32x4_t scale = vdupq_n_f32(path.scales[k * path.lanes + t]);
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 4
                for (size_t v = 0; v < 4; ++v)
                    y[t][b][v] = vfmaq_f32(y[t][b][v], vcvtq_f32_s32(sum[t][b][v]), scale);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 4
            for (size_t v = 0; v < 4; ++v)
                put<NeonArch>(out[t], i + b * word_columns + 4 * v, 4, y[t][b][v]);
        }
    }
}
#endif

}  // namespace
}  // namespace espalier
