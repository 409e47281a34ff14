// Attention of one head on bfloat16 queries, keys and values that it rounds to 8 bits first, for models whose
// arithmetic is in 8 bits: sums are exact integers, the softmax is float32. One scale a token for queries and
// keys, one a dimension for values. Weights of the softmax are integers of 0 to 255 beside the largest, 255,
// and a weight between two of them takes the upper as often as it is near to it (which, is told by query and
// key): a sentence's many small weights would vanish together if they were rounded to the nearest, and all
// that they carry with them.
//
// With and without AVX512_VNNI the same bits.
#pragma once

#include <cmath>

#include "kernels/attention/attention_narrow-inl.h"

namespace espalier {
namespace {

// sum += four products of an unsigned and a signed byte in every word.
[[gnu::always_inline]] inline __m512i add_products_of_bytes(__m512i sum, __m512i a, __m512i b) {
#if defined(__AVX512VNNI__)
    return add_quad_products(sum, a, b);
#else
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi16(0xff)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(b, 8));
    return _mm512_add_epi32(sum, _mm512_add_epi32(even, odd));
#endif
}

struct ByteProducts {
    using Sum = __m512i;
    [[gnu::always_inline]] static Sum begin(const int32_t* start) {
        return start != nullptr ? _mm512_loadu_si512(start) : _mm512_setzero_si512();
    }
    [[gnu::always_inline]] static Sum add(Sum sum, __m512i a, __m512i b) {
        return add_products_of_bytes(sum, a, b);
    }
    [[gnu::always_inline]] static __m512 floats(Sum sum) { return _mm512_cvtepi32_ps(sum); }
};

// Scales and their inverses from the largest sizes, as ByteSteps (round-inl.h) has them. `most`: bfloat16
// without its sign in the upper half of every word.
struct ByteScales {
    __m512 scale, steps;

    explicit ByteScales(__m512i most) {
        const __m512 size = _mm512_castsi512_ps(most);
        const __mmask16 finite = _mm512_cmplt_epi32_mask(most, _mm512_set1_epi32(0x7f800000));
        const __mmask16 invertible = _mm512_cmp_ps_mask(size, _mm512_set1_ps(1e-35F), _CMP_GT_OQ) & finite;
        scale = _mm512_mask_mul_ps(_mm512_set1_ps(NAN), finite, size, _mm512_set1_ps(1.0F / 127.0F));
        steps = _mm512_maskz_div_ps(invertible, _mm512_set1_ps(127.0F), size);
    }
};

[[gnu::always_inline]] inline __m512 low_bfloats(__m512i words) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}
[[gnu::always_inline]] inline __m512 high_bfloats(__m512i words) {
    return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}

// Four integers of -127 to 127 as the bytes of a word, each 128 too high.
[[gnu::always_inline]] inline __m512i raised_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i low = _mm512_add_epi32(a, _mm512_slli_epi32(b, 8));
    const __m512i high = _mm512_add_epi32(c, _mm512_slli_epi32(d, 8));
    return _mm512_add_epi32(_mm512_add_epi32(low, _mm512_slli_epi32(high, 16)),
                            _mm512_set1_epi32(static_cast<int32_t>(0x80808080u)));
}
[[gnu::always_inline]] inline __m512i lowered(__m512i bytes) {
    return _mm512_xor_si512(bytes, _mm512_set1_epi32(static_cast<int32_t>(0x80808080u)));
}

// Where a block of 16 tokens' rows begin. Behind the last token its row again: what comes of it is not used,
// and nothing has to be masked.
struct BlockRows {
    const uint16_t* row[16];

    BlockRows(const uint16_t* first, size_t stride, size_t there) {
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; ++i) {
            row[i] = first;
            first += i + 1 < there ? stride : 0;
        }
    }
};

// 2 * words dimensions of the rows, a pair a vector: [words][16]; the largest sizes of both halves so far.
template <size_t words>
[[gnu::always_inline]] inline __m512i transpose_pairs(const BlockRows& rows, size_t dimension, size_t first,
                                                      uint32_t* target, __m512i most) {
    __m512i m[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; ++i) {
        m[i] = _mm512_loadu_si512(rows.row[i] + first);
        __builtin_prefetch(rows.row[i] + first + dimension);
    }
    transpose_words(m);
#pragma GCC unroll 16
    for (size_t i = 0; i < words; ++i) {
        _mm512_store_si512(target + i * 16, m[i]);
        most = _mm512_max_epu16(most, _mm512_and_si512(m[i], _mm512_set1_epi16(0x7fff)));
    }
    return most;
}

// Queries or keys of 16 tokens as [dimension / 2][16] words; returns their scales.
inline ByteScales transpose_tokens(const uint16_t* first, size_t stride, size_t there, size_t dimension,
                                   uint32_t* target) {
    const BlockRows rows(first, stride, there);
    __m512i most = _mm512_setzero_si512();
    size_t c = 0;
    for (; c + 32 <= dimension; c += 32)
        most = transpose_pairs<16>(rows, dimension, c, target + c * 8, most);
    if (c < dimension) most = transpose_pairs<8>(rows, dimension, c, target + c * 8, most);
    return ByteScales(_mm512_max_epu32(_mm512_slli_epi32(most, 16), _mm512_castps_si512(high_bfloats(most))));
}

[[gnu::always_inline]] inline __m512i rounded_quad(const uint32_t* pairs, __m512 steps) {
    const auto round = [&](__m512 values) { return _mm512_cvtps_epi32(_mm512_mul_ps(values, steps)); };
    const __m512i first = _mm512_load_si512(pairs), second = _mm512_load_si512(pairs + 16);
    return raised_bytes(round(low_bfloats(first)), round(high_bfloats(first)), round(low_bfloats(second)),
                        round(high_bfloats(second)));
}

// Queries: [dimension / 4][padded] words of raised bytes, and a scale a token.
inline void pack_byte_queries(const uint16_t* queries, size_t stride, size_t tokens, size_t dimension,
                              size_t padded, uint32_t* pairs, uint32_t* target, float* scale) {
    for (size_t start = 0; start < padded; start += 16) {
        const ByteScales scales =
            transpose_tokens(queries + start * stride, stride, tokens - start, dimension, pairs);
        _mm512_store_ps(scale + start, scales.scale);
        for (size_t quad = 0; quad < dimension / 4; ++quad)
            _mm512_store_si512(target + quad * padded + start, rounded_quad(pairs + quad * 32, scales.steps));
    }
}

// Keys: [panel][dimension / 4][columns] words, a scale a token, and what products with raised queries begin
// with. Returns whether all are finite.
inline bool pack_byte_keys(const uint16_t* keys, size_t stride, size_t tokens, size_t dimension,
                           size_t padded, uint32_t* pairs, uint32_t* target, float* scale, int32_t* begin) {
    bool finite = true;
    for (size_t start = 0; start < padded; start += 16) {
        const size_t panel = start / attention_columns * attention_columns;
        const size_t columns = columns_of_panel(panel, padded);
        const ByteScales scales =
            transpose_tokens(keys + start * stride, stride, tokens - start, dimension, pairs);
        __m512i sum = _mm512_setzero_si512();
        for (size_t quad = 0; quad < dimension / 4; ++quad) {
            const __m512i bytes = lowered(rounded_quad(pairs + quad * 32, scales.steps));
            sum = add_products_of_bytes(sum, _mm512_set1_epi8(1), bytes);
            _mm512_store_si512(target + panel * (dimension / 4) + quad * columns + (start - panel), bytes);
        }
        finite = finite && _mm512_cmp_ps_mask(scales.scale, scales.scale, _CMP_UNORD_Q) == 0;
        _mm512_store_ps(scale + start, scales.scale);
        _mm512_store_si512(begin + start,
                           _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sum), 7));
    }
    return finite;
}

// Values: [panel][padded / 4][columns of the dimension] words of four tokens, and a scale a dimension. Behind
// the last token anything: weights are 0 there.
inline void pack_byte_values(const uint16_t* values, size_t stride, size_t tokens, size_t dimension,
                             size_t padded, uint32_t* target, float* scale) {
    const auto widened = [](const uint16_t* place) {
        return _mm512_slli_epi32(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(place))), 16);
    };
    for (size_t panel = 0; panel < dimension; panel += attention_columns) {
        const size_t columns = columns_of_panel(panel, dimension);
        __m512i most = _mm512_setzero_si512();
        for (size_t j = 0; j < tokens; ++j) {
            const uint16_t* row = values + j * stride + panel;
            __builtin_prefetch(row + dimension);
            most =
                _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(row), _mm512_set1_epi16(0x7fff)));
        }
        alignas(64) uint16_t sizes[attention_columns];
        _mm512_store_si512(sizes, most);
        for (size_t c = 0; c < columns; c += 16) {
            const ByteScales scales(widened(sizes + c));
            _mm512_store_ps(scale + panel + c, scales.scale);
            const auto rounded = [&](size_t token) {
                const uint16_t* row = values + (token < tokens ? token : tokens - 1) * stride;
                return _mm512_cvtps_epi32(
                    _mm512_mul_ps(_mm512_castsi512_ps(widened(row + panel + c)), scales.steps));
            };
            uint32_t* place = target + panel * (padded / 4) + c;
            for (size_t j = 0; j < padded; j += 4, place += columns)
                _mm512_store_si512(
                    place, lowered(raised_bytes(rounded(j), rounded(j + 1), rounded(j + 2), rounded(j + 3))));
        }
    }
}

// What is added before a weight is cut to an integer: i times the golden ratio, less its whole part, for i up
// to 64 and the first 16 again. Any of its stretches is spread evenly over 0 to 1.
struct Dither {
    alignas(64) float value[64 + 16];
    constexpr Dither() : value() {
        for (size_t i = 0; i < 64; ++i) {
            const double product = static_cast<double>(i) * 0.61803398874989485;
            value[i] = static_cast<float>(product - static_cast<double>(static_cast<size_t>(product)));
        }
        for (size_t i = 64; i < 64 + 16; ++i)
            value[i] = value[i - 64];
    }
};
inline constexpr Dither dither;

// 2^x for x <= 8 with an error of 2e-3 of it, half a step of the largest weight; 0 for x far below 0.
[[gnu::always_inline]] inline __m512 weight_power(__m512 x) {
    const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-126.0F), x);
    const __m512 whole = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 part = _mm512_sub_ps(bounded, whole);
    const __m512 slope = _mm512_fmadd_ps(_mm512_set1_ps(0.23842854F), part, _mm512_set1_ps(0.7034491F));
    return _mm512_scalef_ps(_mm512_fmadd_ps(slope, part, _mm512_set1_ps(1.00044325F)), whole);
}

// The softmax's weights of one query's scores, as bytes, zeros behind the last token; returns their sum.
inline float byte_weights(const float* scores, size_t tokens, size_t padded, float scale, size_t query,
                          std::byte* weights) {
    const auto last = static_cast<__mmask16>(0xffff >> (padded - tokens));
    const size_t whole = padded - 16;
    __m512 largest =
        _mm512_mask_load_ps(_mm512_set1_ps(std::numeric_limits<float>::lowest()), last, scores + whole);
    for (size_t j = 0; j < whole; j += 16)
        largest = _mm512_max_ps(largest, _mm512_load_ps(scores + j));
    constexpr float log2_top = 7.9915218F;  // of 254.5: raised by less than 1 it is cut to 255 at most
    const float per_score = scale * 1.44269504F, top = _mm512_reduce_max_ps(largest) * per_score;
    if (!(std::fabs(top) < std::numeric_limits<float>::infinity())) return NAN;
    const __m512 factor = _mm512_set1_ps(per_score), offset = _mm512_set1_ps(log2_top - top);
    __m512i sum = _mm512_setzero_si512();
    const size_t turn = query * 19;  // neighbouring queries far apart in the sequence
    const auto weigh = [&](size_t j, __mmask16 there) {
        const __m512 e = weight_power(_mm512_fmadd_ps(_mm512_load_ps(scores + j), factor, offset));
        const __m512 raised = _mm512_add_ps(e, _mm512_loadu_ps(dither.value + (turn + j) % 64));
        const __m512i weight = _mm512_maskz_cvttps_epi32(there, raised);
        sum = _mm512_add_epi32(sum, weight);
        _mm_store_si128(reinterpret_cast<__m128i*>(weights + j), _mm512_cvtepi32_epi8(weight));
    };
    for (size_t j = 0; j < whole; j += 16)
        weigh(j, 0xffff);
    weigh(whole, last);
    return static_cast<float>(_mm512_reduce_add_epi32(sum));
}

inline void attention_head_s8(const AttentionShape& s, const uint16_t* qkv, size_t tokens, size_t head,
                              float* out, float* scratch) {
    const size_t d = s.head_dimension, stride = s.row_stride(), kv_head = head / (s.heads / s.kv_heads);
    constexpr size_t block = attention_query_block;
    const size_t padded = (tokens + 15) / 16 * 16;
    // All at multiples of 64 bytes: d and padded are of 16.
    float* const scores = scratch;
    float* const query_scale = scores + block * padded;
    float* const key_scale = query_scale + padded;
    auto* const key_begin = reinterpret_cast<int32_t*>(key_scale + padded);
    float* const value_scale = key_scale + 2 * padded;
    auto* const pairs = reinterpret_cast<uint32_t*>(value_scale + d);
    uint32_t* const queries = pairs + d / 2 * 16;
    uint32_t* const keys = queries + padded * d / 4;
    uint32_t* const values = keys + padded * d / 4;
    auto* const weights = reinterpret_cast<std::byte*>(values + padded * d / 4);
    pack_byte_queries(qkv + head * d, stride, tokens, d, padded, pairs, queries, query_scale);
    const bool finite = pack_byte_keys(qkv + (s.heads + kv_head) * d, stride, tokens, d, padded, pairs, keys,
                                       key_scale, key_begin);
    pack_byte_values(qkv + (s.heads + s.kv_heads + kv_head) * d, stride, tokens, d, padded, values,
                     value_scale);

    float inverse[block];
    NarrowProduct product, mix;
    product.groups = d / 4;
    product.step = padded;
    product.stride = 1;
    product.b = keys;
    product.columns = padded;
    product.start = key_begin;
    product.column_scale = key_scale;
    product.y = scores;
    product.y_stride = padded;
    mix.groups = padded / 4;
    mix.a = reinterpret_cast<const uint32_t*>(weights);
    mix.step = 1;
    mix.stride = padded / 4;
    mix.b = values;
    mix.columns = d;
    mix.row_scale = inverse;
    mix.column_scale = value_scale;
    mix.y_stride = s.query_width();
    for (size_t start = 0, left = (tokens + block - 1) / block, rows; left > 0; --left, start += rows) {
        rows = (tokens - start + left - 1) / left;  // blocks of nearly equal size
        product.a = queries + start;
        multiply_narrow<ByteProducts>(product, rows);
        for (size_t r = 0; r < rows; ++r) {
            const float scale = finite ? s.scale * query_scale[start + r] : NAN;
            inverse[r] = 1.0F / byte_weights(scores + r * padded, tokens, padded, scale, start + r,
                                             weights + r * padded);
        }
        mix.y = out + start * s.query_width() + head * d;
        multiply_narrow<ByteProducts>(mix, rows);
    }
}

}  // namespace
}  // namespace espalier
