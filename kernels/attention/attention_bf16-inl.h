// Attention of one head on bfloat16 queries, keys and values, for models whose arithmetic is narrow anyway:
// sums and the softmax are float32, its weights are rounded to bfloat16. Queries are multiplied where they
// stand; keys and values are packed into panels of pairs: keys by neighbouring dimensions, values by
// neighbouring tokens.
#pragma once

#include "kernels/attention/attention_narrow-inl.h"

namespace espalier {
namespace {

struct BfloatProducts {
    using Sum = __m512;
    [[gnu::always_inline]] static Sum begin(const int32_t*) { return _mm512_setzero_ps(); }
    [[gnu::always_inline]] static Sum add(Sum sum, __m512i a, __m512i b) {
        return add_pair_products(sum, a, b);
    }
    [[gnu::always_inline]] static __m512 floats(Sum sum) { return sum; }
};

// Keys of `tokens` tokens, `stride` numbers apart: [panel][dimension / 2][columns], zeros up to `padded`
// tokens.
inline void pack_keys(const uint16_t* keys, size_t stride, size_t tokens, size_t dimension, size_t padded,
                      uint32_t* target) {
    const size_t pairs = dimension / 2;
    for (size_t start = 0; start < padded; start += 16) {
        const size_t panel = start / attention_columns * attention_columns;
        const size_t columns = columns_of_panel(panel, padded);
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
            const size_t columns = columns_of_panel(panel, dimension);
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

// exponentials(), rounded into pairs: half as many words.
inline float exponentials_in_pairs(float* scores, size_t padded, float scale, uint32_t* pairs) {
    using V = Floats<WideArch>;
    V largest = V::load_aligned(scores);
    for (size_t j = 16; j < padded; j += 16)
        largest = xsimd::max(largest, V::load_aligned(scores + j));
    const float per_score = scale * 1.44269504F;
    const float top = _mm512_reduce_max_ps(largest);
    // As in exponentials().
    const bool any = top > std::numeric_limits<float>::lowest();
    const V factor(per_score), offset(any ? -top * per_score : std::numeric_limits<float>::quiet_NaN());
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
    NarrowProduct product, mix;
    product.groups = d / 2;
    product.step = 1;
    product.stride = stride / 2;
    product.b = keys;
    product.columns = padded;
    product.y = scores;
    product.y_stride = padded;
    mix.groups = padded / 2;
    mix.a = weights;
    mix.step = 1;
    mix.stride = padded / 2;
    mix.b = values;
    mix.columns = d;
    mix.row_scale = inverse;
    mix.y_stride = s.query_width();
    for (size_t start = 0, left = (tokens + block - 1) / block, rows; left > 0; --left, start += rows) {
        rows = (tokens - start + left - 1) / left;  // blocks of nearly equal size
        product.a = reinterpret_cast<const uint32_t*>(qkv + start * stride + head * d);
        multiply_narrow<BfloatProducts>(product, rows);
        for (size_t r = 0; r < rows; ++r) {
            float* row = scores + r * padded;
            for (size_t j = tokens; j < padded; ++j)
                row[j] = std::numeric_limits<float>::lowest();
            inverse[r] = 1.0F / exponentials_in_pairs(row, padded, s.scale, weights + r * padded / 2);
        }
        mix.y = out + start * s.query_width() + head * d;
        multiply_narrow<BfloatProducts>(mix, rows);
    }
}

}  // namespace
}  // namespace espalier
