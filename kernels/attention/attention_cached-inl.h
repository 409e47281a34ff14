// Queries against a cache, one by itself or many together; specification: attention_scalar.cpp.
#pragma once

#include "kernels/attention/attention-inl.h"

namespace espalier {
namespace {

// sum_j weight[j] * values[j], of `vectors` vectors of columns from `column` on: the sums stay in registers.
template <class Arch, size_t vectors>
inline void mix_columns(const CachedHead& seen, const float* weights, float inverse, size_t column,
                        float* out) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    V sums[vectors];
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v)
        sums[v] = V(0.0F);
    const float* row = seen.values + column;
    for (size_t j = 0; j < seen.length; ++j, row += seen.dimension) {
        const V weight(weights[j]);
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; ++v)
            sums[v] = xsimd::fma(weight, V::load_unaligned(row + v * w), sums[v]);
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < vectors; ++v)
        (sums[v] * V(inverse)).store_unaligned(out + column + v * w);
}

// A whole number of vectors, the last perhaps reaching into what is behind a row: zeros of the query meet it.
template <class Arch>
inline float padded_dot(const float* query, const float* key, size_t padded) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    V even(0.0F), odd(0.0F);
    size_t c = 0;
    for (; c + 2 * w <= padded; c += 2 * w) {
        even = xsimd::fma(V::load_aligned(query + c), V::load_unaligned(key + c), even);
        odd = xsimd::fma(V::load_aligned(query + c + w), V::load_unaligned(key + c + w), odd);
    }
    if (c < padded) even = xsimd::fma(V::load_aligned(query + c), V::load_unaligned(key + c), even);
    return xsimd::hadd(even + odd);
}

template <class Arch>
inline void attend_cached(const CachedHead& seen, const float* query, float scale, float* out,
                          float* scratch) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const size_t d = seen.dimension, padded = (seen.length + 15) / 16 * 16;
    float *scores = scratch, *wide = scratch + padded;
    const size_t wide_length = (d + w - 1) / w * w;
    for (size_t c = 0; c < wide_length; ++c)
        wide[c] = c < d ? query[c] : 0.0F;
    for (size_t j = 0; j < seen.length; ++j)
        scores[j] = padded_dot<Arch>(wide, seen.keys + j * d, wide_length);
    for (size_t j = seen.length; j < padded; ++j)
        scores[j] = std::numeric_limits<float>::lowest();
    const float inverse = 1.0F / exponentials<Arch>(scores, padded, scale);
    size_t c = 0;
    for (; c + 4 * w <= d; c += 4 * w)
        mix_columns<Arch, 4>(seen, scores, inverse, c, out);
    for (; c + w <= d; c += w)
        mix_columns<Arch, 1>(seen, scores, inverse, c, out);
    if (c == d) return;
    V sum(0.0F);
    for (size_t j = 0; j < seen.length; ++j)
        sum = xsimd::fma(V(scores[j]), V::load_unaligned(seen.values + j * d + c), sum);
    store_partial<Arch>(out + c, sum * V(inverse), d - c);
}

// Blocks of queries on tiles, each against the keys that its last query sees.
template <class Arch>
inline void attend_cached_queries(const CachedHead& seen, const CachedQueries& queries, float scale,
                                  float* scratch) {
    const size_t d = seen.dimension, padded = (seen.length + 15) / 16 * 16;
    float* keys = scratch + attention_query_block * padded;
    transpose_keys<Arch>(seen.keys, d, seen.length, d, padded, keys);
    QueryBlock block;
    block.query_stride = queries.stride;
    block.keys = keys;
    block.key_stride = padded;
    block.values = seen.values;
    block.value_stride = block.dimension = d;
    block.causal = true;
    block.out_stride = queries.out_stride;
    for (size_t start = 0; start < queries.count; start += attention_query_block) {
        const size_t left = queries.count - start;
        block.rows = left < attention_query_block ? left : attention_query_block;
        block.seen = seen.length - left + block.rows;
        block.queries = queries.first + start * queries.stride;
        block.out = queries.out + start * queries.out_stride;
        attend_block<Arch>(block, scale, scratch);
    }
}

}  // namespace
}  // namespace espalier
