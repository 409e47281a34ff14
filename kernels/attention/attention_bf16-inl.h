// Attention of one head on bfloat16 queries, keys and values, for models whose arithmetic is narrow anyway:
// sums and the softmax are float32, its weights are rounded to bfloat16. Queries are multiplied where they
// stand; keys and values are packed into panels of pairs: keys by neighbouring dimensions, values by
// neighbouring tokens.
#pragma once

#include "kernels/attention/attention_narrow-inl.h"

namespace espalier {
namespace {

// y[r, c] = factor[r] * sum_k A[r, k] B[k, c] for `height` rows, `stride` words apart, and one panel of
// `pairs` words; factor may be null. Products over one head are short (16 steps at 32 dimensions), so that
// what begins and ends a tile counts: a block of 12 queries is one tile, and rows are told from few
// registers.
template <size_t height, size_t width>
[[gnu::noinline]] void attention_tile(const uint32_t* b, size_t pairs, const uint32_t* a, size_t stride,
                                      const float* factor, float* y, size_t y_stride) {
    __m512 sum[height][width];
#pragma GCC unroll 12
    for (size_t r = 0; r < height; ++r) {
#pragma GCC unroll 2
        for (size_t v = 0; v < width; ++v)
            sum[r][v] = _mm512_setzero_ps();
    }
    const uint32_t* group[3] = {a, a + 4 * stride, a + 8 * stride};
    const size_t stride3 = 3 * stride;
    for (size_t k = 0; k < pairs; ++k, b += width * 16) {
        const __m512i first = _mm512_loadu_si512(b), second = _mm512_loadu_si512(b + (width - 1) * 16);
#pragma GCC unroll 12
        for (size_t r = 0; r < height; ++r) {
            const size_t in_group = r % 4;
            const uint32_t* place = group[r / 4] + (in_group == 3 ? stride3 : in_group * stride);
            const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(*place));
            sum[r][0] = add_pair_products(sum[r][0], value, first);
            if constexpr (width == 2) sum[r][1] = add_pair_products(sum[r][1], value, second);
        }
        // Three pointers, not twelve: GCC would keep one a row, half of them in memory.
#pragma GCC unroll 3
        for (auto& rows : group) {
            ++rows;
            asm("" : "+r"(rows));
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < height; ++r) {
        const __m512 factors = _mm512_set1_ps(factor != nullptr ? factor[r] : 1.0F);
#pragma GCC unroll 2
        for (size_t v = 0; v < width; ++v)
            _mm512_storeu_ps(y + r * y_stride + v * 16, _mm512_mul_ps(sum[r][v], factors));
    }
}

template <size_t height, size_t width>
inline void attention_tile_of(size_t count, const uint32_t* b, size_t pairs, const uint32_t* a, size_t stride,
                              const float* factor, float* y, size_t y_stride) {
    if constexpr (height > 0) {
        if (count == height) {
            attention_tile<height, width>(b, pairs, a, stride, factor, y, y_stride);
        } else {
            attention_tile_of<height - 1, width>(count, b, pairs, a, stride, factor, y, y_stride);
        }
    }
}

// At most attention_query_block rows times all panels of a packed matrix; columns: a multiple of 16.
inline void multiply_words(const uint32_t* b, size_t pairs, size_t columns, size_t count, const uint32_t* a,
                           size_t stride, const float* factor, float* y, size_t y_stride) {
    for (size_t start = 0; start < columns; start += attention_columns) {
        const uint32_t* panel = b + start * pairs;
        if (columns - start > 16) {
            attention_tile_of<attention_query_block, 2>(count, panel, pairs, a, stride, factor, y + start,
                                                        y_stride);
        } else {
            attention_tile_of<attention_query_block, 1>(count, panel, pairs, a, stride, factor, y + start,
                                                        y_stride);
        }
    }
}

// Keys of `tokens` tokens, `stride` numbers apart: [panel][dimension / 2][columns], zeros up to `padded`
// tokens.
inline void pack_keys(const uint16_t* keys, size_t stride, size_t tokens, size_t dimension, size_t padded,
                      uint32_t* target) {
    const size_t pairs = dimension / 2;
    for (size_t start = 0; start < padded; start += 16) {
        const size_t panel = start / attention_columns * attention_columns;
        const size_t columns = padded - panel < attention_columns ? padded - panel : attention_columns;
        for (size_t first = 0; first < pairs; first += 16) {
            const size_t words = pairs - first < 16 ? pairs - first : 16;
            const auto mask = static_cast<__mmask16>((1u << words) - 1);
            const uint16_t* row = keys + start * stride + first * 2;
            __m512i m[16];
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) {
                const bool there = start + i < tokens;
                m[i] = _mm512_maskz_loadu_epi32(there ? mask : 0, row);
                __builtin_prefetch(row + dimension);
                row += start + i + 1 < tokens ? stride : 0;
            }
            transpose_words(m);
            uint32_t* place = target + panel * pairs + first * columns + (start - panel);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) {
                if (i < words) _mm512_storeu_si512(place + i * columns, m[i]);
            }
        }
    }
}

// Values: [panel][padded / 2][columns of the dimension]; a pair holds an even and an odd token.
inline void pack_values(const uint16_t* values, size_t stride, size_t tokens, size_t dimension, size_t padded,
                        uint32_t* target) {
    for (size_t j = 0; j < padded; j += 2) {
        // Past the last token: any row, taken as zeros.
        const __mmask16 even_there = j < tokens ? 0xffff : 0, odd_there = j + 1 < tokens ? 0xffff : 0;
        const uint16_t* even = values + (j < tokens ? j : 0) * stride;
        const uint16_t* odd = values + (j + 1 < tokens ? j + 1 : 0) * stride;
        for (size_t c = 0; c < dimension; c += 16) {
            const size_t panel = c / attention_columns * attention_columns;
            const size_t columns =
                dimension - panel < attention_columns ? dimension - panel : attention_columns;
            const auto load = [&](const uint16_t* row, __mmask16 there) {
                __builtin_prefetch(row + c + dimension);
                return _mm512_maskz_cvtepu16_epi32(
                    there, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + c)));
            };
            _mm512_storeu_si512(
                target + panel * (padded / 2) + j / 2 * columns + (c - panel),
                _mm512_or_si512(load(even, even_there), _mm512_slli_epi32(load(odd, odd_there), 16)));
        }
    }
}

// exponentials(), rounded into pairs: half as many words.
inline float exponentials_in_pairs(float* scores, size_t padded, float scale, uint32_t* pairs) {
    using V = Floats<WideArch>;
    V largest = V::load_aligned(scores);
    for (size_t j = 16; j < padded; j += 16)
        largest = xsimd::max(largest, V::load_aligned(scores + j));
    const float per_score = scale * 1.44269504F;
    const V factor(per_score), offset(-_mm512_reduce_max_ps(largest) * per_score);
    V sum(0.0F);
    const auto value = [&](size_t j) {
        const V e = rough_power_of_two(xsimd::fma(V::load_aligned(scores + j), factor, offset));
        sum = sum + e;
        return e;
    };
    size_t j = 0;
    for (; j + 32 <= padded; j += 32) {
        const V low = value(j), high = value(j + 16);
        const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
        __builtin_memcpy(pairs + j / 2, &both, 64);
    }
    if (j < padded) {
        const __m256bh last = _mm512_cvtneps_pbh(value(j));
        __builtin_memcpy(pairs + j / 2, &last, 32);
    }
    return _mm512_reduce_add_ps(sum);
}

inline void attention_head_bf16(const AttentionShape& s, const uint16_t* qkv, size_t tokens, size_t head,
                                float* out, float* scratch) {
    const size_t d = s.head_dimension, stride = s.row_stride(), kv_head = head / (s.heads / s.kv_heads);
    constexpr size_t block = attention_query_block;
    const size_t padded = (tokens + 15) / 16 * 16;
    float* const scores = scratch;  // 64-byte aligned, as rows of it are
    auto* const keys = reinterpret_cast<uint32_t*>(scores + block * padded);
    uint32_t* const values = keys + padded * d / 2;
    uint32_t* const weights = values + padded / 2 * d;
    pack_keys(qkv + (s.heads + kv_head) * d, stride, tokens, d, padded, keys);
    pack_values(qkv + (s.heads + s.kv_heads + kv_head) * d, stride, tokens, d, padded, values);
    float inverse[block];
    for (size_t start = 0, left = (tokens + block - 1) / block, rows; left > 0; --left, start += rows) {
        rows = (tokens - start + left - 1) / left;  // blocks of nearly equal size
        const auto* queries = reinterpret_cast<const uint32_t*>(qkv + start * stride + head * d);
        multiply_words(keys, d / 2, padded, rows, queries, stride / 2, nullptr, scores, padded);
        for (size_t r = 0; r < rows; ++r) {
            float* row = scores + r * padded;
            for (size_t j = tokens; j < padded; ++j)
                row[j] = std::numeric_limits<float>::lowest();
            inverse[r] = 1.0F / exponentials_in_pairs(row, padded, s.scale, weights + r * padded / 2);
        }
        multiply_words(values, padded / 2, d, rows, weights, padded / 2, inverse,
                       out + start * s.query_width() + head * d, s.query_width());
    }
}

}  // namespace
}  // namespace espalier
