// Attention of one head with bfloat16 products, for models whose arithmetic is narrow anyway: queries, keys,
// values and weights of the softmax are rounded to bfloat16, sums and the softmax are float32. Keys and
// values are packed into panels of pairs (kernels/dense/panel.h): keys by neighbouring dimensions, values by
// neighbouring tokens.
#pragma once

#include "kernels/attention/attention-inl.h"
#include "kernels/dense/panel-inl.h"
#include "kernels/quantize/round-inl.h"

namespace espalier {
namespace {

// Contiguous rows of words times a panel, each sum times its row's factor.
template <class Arch>
struct AttentionRows {
    using Ops = PanelOps<Arch, TensorType::bf16>;
    const uint32_t* words;  // of A
    size_t words_a_row;
    const float* factor;  // [rows]
    float* y;
    size_t stride;

    [[gnu::always_inline]] const std::byte* a(size_t r) const {
        return reinterpret_cast<const std::byte*>(words + r * words_a_row);
    }
    [[gnu::always_inline]] const std::byte* next(size_t r, size_t) const { return a(r); }
    [[gnu::always_inline]] size_t next_bytes(size_t) const { return 0; }
    template <size_t height, size_t width>
    [[gnu::always_inline]] void start(size_t, size_t, typename Ops::Register (&sum)[height][width]) const {
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = Floats<Arch>(0.0F);
        }
    }
    template <size_t height, size_t width>
    [[gnu::always_inline]] void finish(size_t row, size_t c,
                                       const typename Ops::Register (&sum)[height][width]) const {
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const Floats<Arch> factors(factor[row + r]);
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                (sum[r][v] * factors).store_unaligned(y + (row + r) * stride + c + v * lanes<Arch>);
        }
    }
};

// rows of A times a packed matrix of k pairs and `columns` columns, a multiple of 16.
template <class Arch>
inline void multiply_words(const uint32_t* b, size_t pairs, size_t columns, size_t count,
                           AttentionRows<Arch> rows) {
    float* const y = rows.y;
    for (size_t start = 0; start < columns; start += panel_columns) {
        PanelJob job;
        job.columns = columns - start < panel_columns ? columns - start : panel_columns;
        job.sources = 1;
        job.source[0] = {b + start * pairs, pairs, 0};
        rows.y = y + start;
        multiply_panel<typename AttentionRows<Arch>::Ops>(job, count, rows);
    }
}

// Keys of `tokens` tokens: [panel][dimension / 2][columns], zeros up to `padded` tokens.
template <class Arch>
inline void pack_keys(const float* keys, size_t stride, size_t tokens, size_t dimension, size_t padded,
                      uint32_t* row_words, uint32_t* target) {
    const size_t pairs = dimension / 2;
    for (size_t j = 0; j < padded; ++j) {
        const size_t start = j / panel_columns * panel_columns;
        const size_t columns = padded - start < panel_columns ? padded - start : panel_columns;
        uint32_t* column = target + start * pairs + j - start;
        if (j < tokens)
            round_to_bfloat<Arch>(keys + j * stride, dimension, reinterpret_cast<uint16_t*>(row_words));
        for (size_t c = 0; c < pairs; ++c)
            column[c * columns] = j < tokens ? row_words[c] : 0;
    }
}

// Values: [panel][padded / 2][columns of the dimension]; a pair holds an even and an odd token.
inline void pack_values(const float* values, size_t stride, size_t tokens, size_t dimension, size_t padded,
                        uint32_t* target) {
    for (size_t start = 0; start < dimension; start += panel_columns) {
        const size_t columns = dimension - start < panel_columns ? dimension - start : panel_columns;
        for (size_t j = 0; j < padded; j += 2) {
            uint32_t* pair = target + start * (padded / 2) + j / 2 * columns;
            const float* even = values + j * stride + start;
            for (size_t c = 0; c < columns; ++c) {
                const uint32_t low = j < tokens ? rounded_to_bf16(even[c]) : 0;
                const uint32_t high = j + 1 < tokens ? rounded_to_bf16(even[stride + c]) : 0;
                pair[c] = low | high << 16;
            }
        }
    }
}

template <class Arch>
inline void attention_head_bf16(const AttentionShape& s, const float* qkv, size_t tokens, size_t head,
                                float* out, float* scratch) {
    const size_t d = s.head_dimension, stride = s.row_stride(), kv_head = head / (s.heads / s.kv_heads);
    if (d % 16 != 0) return attention_head<Arch>(s, qkv, tokens, head, out, scratch);
    constexpr size_t block = attention_query_block;
    const size_t padded = (tokens + 15) / 16 * 16;
    float* const scores = scratch;  // 64-byte aligned, as rows of it are
    auto* const keys = reinterpret_cast<uint32_t*>(scores + block * padded);
    uint32_t* const values = keys + padded * d / 2;
    uint32_t* const weights = values + padded / 2 * d;
    uint32_t* const queries = weights + block * padded / 2;
    pack_keys<Arch>(qkv + (s.heads + kv_head) * d, stride, tokens, d, padded, queries, keys);
    pack_values(qkv + (s.heads + s.kv_heads + kv_head) * d, stride, tokens, d, padded, values);
    float ones[block], inverse[block];
    for (float& one : ones)
        one = 1;
    for (size_t start = 0; start < tokens; start += block) {
        const size_t rows = tokens - start < block ? tokens - start : block;
        for (size_t r = 0; r < rows; ++r)
            round_to_bfloat<Arch>(qkv + (start + r) * stride + head * d, d,
                                  reinterpret_cast<uint16_t*>(queries + r * d / 2));
        multiply_words<Arch>(keys, d / 2, padded, rows, {queries, d / 2, ones, scores, padded});
        for (size_t r = 0; r < rows; ++r) {
            float* row = scores + r * padded;
            for (size_t j = tokens; j < padded; ++j)
                row[j] = std::numeric_limits<float>::lowest();
            inverse[r] = 1.0F / exponentials<Arch>(row, padded, s.scale);
            round_to_bfloat<Arch>(row, padded, reinterpret_cast<uint16_t*>(weights + r * padded / 2));
        }
        multiply_words<Arch>(
            values, padded / 2, d, rows,
            {weights, padded / 2, inverse, out + start * s.query_width() + head * d, s.query_width()});
    }
}

}  // namespace
}  // namespace espalier
