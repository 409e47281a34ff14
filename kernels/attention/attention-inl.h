// Attention of one head on tiles; specification: attention_scalar.cpp. Keys are transposed once a head, so
// that scores are a product without sums across lanes; values are used where they stand.
#pragma once

#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/dense/tile-inl.h"

namespace espalier {
namespace {

// 2^x for x <= 0, with an error of 2e-7 of it (Cephes exp2f); below 2^-126 zero or as good as that; NaN
// stays. Half the steps of xsimd's exp, which takes any x.
template <class Arch>
inline Floats<Arch> power_of_two(Floats<Arch> x) {
    using V = Floats<Arch>;
    const V bounded = xsimd::max(V(-126.0F), x);  // the second of the two where one is NaN
    const V whole = xsimd::nearbyint(bounded), part = bounded - whole;
    V p(1.535336188e-4F);
    p = xsimd::fma(p, part, V(1.339887440e-3F));
    p = xsimd::fma(p, part, V(9.618437358e-3F));
    p = xsimd::fma(p, part, V(5.550332471e-2F));
    p = xsimd::fma(p, part, V(2.402264791e-1F));
    p = xsimd::fma(p, part, V(6.931472029e-1F));
    p = xsimd::fma(p, part, V(1.0F));
#if defined(__AVX512F__)
    return V(_mm512_scalef_ps(p, whole));
#else
    const auto exponent = xsimd::to_int(whole) << 23;
    const V value = same_bits<V>(same_bits<Integers<Arch>>(p) + exponent);
    return xsimd::select(x > V(-126.0F), value, xsimd::select(x == x, V(0.0F), x));
#endif
}

// In place, over a whole number of vectors (padding holds the lowest float, whose exponential is 0);
// returns the sum.
template <class Arch>
inline float exponentials(float* scores, size_t padded, float scale) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    V largest(std::numeric_limits<float>::lowest());
    for (size_t j = 0; j < padded; j += w)
        largest = xsimd::max(largest, V::load_aligned(scores + j));
    alignas(64) float lane[w];
    largest.store_aligned(lane);
    float top = lane[0];
    for (size_t i = 1; i < w; ++i)
        top = lane[i] > top ? lane[i] : top;
    // Scores of minus infinity alone have no weights, as in the specification; the padding must not have
    // them.
    if (!(top > std::numeric_limits<float>::lowest())) top = std::numeric_limits<float>::quiet_NaN();
    const V factor(scale * 1.44269504F), offset(top);
    V sum(0.0F);
    for (size_t j = 0; j < padded; j += w) {
        const V value = power_of_two<Arch>((V::load_aligned(scores + j) - offset) * factor);
        value.store_aligned(scores + j);
        sum = sum + value;
    }
    return xsimd::hadd(sum);
}

template <class Arch>
inline void transpose_keys(const float* keys, size_t stride, size_t tokens, size_t dimension, size_t padded,
                           float* target) {
    // 16 tokens at a time: one cache line of the target a dimension, 16 lines of keys that stay in reach.
    for (size_t start = 0; start < padded; start += 16) {
        for (size_t c = 0; c < dimension; ++c) {
            for (size_t j = start; j < start + 16; ++j)
                target[c * padded + j] = j < tokens ? keys[j * stride + c] : 0.0F;
        }
    }
}

// Rows of queries of one head, at most attention_query_block, against its keys, transposed, and values.
struct QueryBlock {
    const float* queries = nullptr;
    size_t query_stride = 0, rows = 0;
    const float* keys = nullptr;
    size_t key_stride = 0;
    const float* values = nullptr;
    size_t value_stride = 0;
    size_t dimension = 0;
    size_t seen = 0;      // tokens that the last row sees
    bool causal = false;  // a row sees one token less than the row behind it
    float* out = nullptr;
    size_t out_stride = 0;
};

// scores: [rows, key_stride]. Tokens that a row does not see get no weight.
template <class Arch>
inline void attend_block(const QueryBlock& b, float scale, float* scores) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const size_t padded = (b.seen + 15) / 16 * 16;  // a whole number of vectors of any width
    const auto score_row = [&](size_t r) { return scores + r * b.key_stride; };
    const auto out_row = [&](size_t r) { return b.out + r * b.out_stride; };
    TileJob product;
    product.depth = b.dimension;
    product.b = b.keys;
    product.b_stride = b.key_stride;
    product.columns = padded;
    multiply<Arch>(
        product, b.rows, [&](size_t r) { return b.queries + r * b.query_stride; }, score_row);
    float inverse[attention_query_block] = {};
    for (size_t r = 0; r < b.rows; ++r) {
        for (size_t j = b.causal ? b.seen + r + 1 - b.rows : b.seen; j < padded; ++j)
            score_row(r)[j] = std::numeric_limits<float>::lowest();
        inverse[r] = 1.0F / exponentials<Arch>(score_row(r), padded, scale);
    }
    TileJob mix;
    mix.depth = b.seen;
    mix.b = b.values;
    mix.b_stride = b.value_stride;
    mix.columns = b.dimension;
    multiply<Arch>(mix, b.rows, score_row, out_row);
    for (size_t r = 0; r < b.rows; ++r) {
        float* row = out_row(r);
        size_t c = 0;
        for (; c + w <= b.dimension; c += w)
            (V::load_unaligned(row + c) * V(inverse[r])).store_unaligned(row + c);
        for (; c < b.dimension; ++c)
            row[c] *= inverse[r];
    }
}

template <class Arch>
inline void attention_head(const AttentionShape& s, const float* qkv, size_t tokens, size_t head, float* out,
                           float* scratch) {
    const size_t d = s.head_dimension, stride = s.row_stride(), kv_head = head / (s.heads / s.kv_heads);
    const size_t padded = (tokens + 15) / 16 * 16;
    float* scores = scratch + d * padded;
    transpose_keys<Arch>(qkv + (s.heads + kv_head) * d, stride, tokens, d, padded, scratch);
    QueryBlock block;
    block.query_stride = block.value_stride = stride;
    block.keys = scratch;
    block.key_stride = padded;
    block.values = qkv + (s.heads + s.kv_heads + kv_head) * d;
    block.dimension = d;
    block.seen = tokens;
    block.out_stride = s.query_width();
    for (size_t start = 0; start < tokens; start += attention_query_block) {
        block.rows = tokens - start < attention_query_block ? tokens - start : attention_query_block;
        block.queries = qkv + start * stride + head * d;
        block.out = out + start * s.query_width() + head * d;
        attend_block<Arch>(block, s.scale, scores);
    }
}

}  // namespace
}  // namespace espalier
