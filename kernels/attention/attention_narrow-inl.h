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

// The columns of a panel that begins at column `panel` of `columns`.
inline size_t columns_of_panel(size_t panel, size_t columns) {
    return columns - panel < attention_columns ? columns - panel : attention_columns;
}

// y[r, c] = row_scale[r] * column_scale[c] * (start[c] + sum_k A[r, k] B[k, c]).
struct NarrowProduct {
    size_t groups = 0;  // of k: as many as a word holds
    // The word of row r and group k is at a[k * step + r * stride].
    const uint32_t* a = nullptr;
    size_t step = 0, stride = 0;
    const uint32_t* b = nullptr;          // packed panels
    size_t columns = 0;                   // of them all, a multiple of 16
    const int32_t* start = nullptr;       // of integer sums; null: zeros
    const float* row_scale = nullptr;     // null: ones
    const float* column_scale = nullptr;  // null: ones
    float* y = nullptr;
    size_t y_stride = 0;
};

// `height` rows and one panel. Products over one head are short (16 steps of bfloat16 at 32 dimensions), so
// that what begins and ends a tile counts: a block of 12 queries is one tile, and rows are told from few
// registers.
// Ops: a vector of sums, begin(start or null), add(sum, a word of A in all lanes, words of B), floats(sum).
template <class Ops, size_t height, size_t width>
[[gnu::noinline]] void attention_tile(const NarrowProduct& p, size_t column) {
    typename Ops::Sum sum[height][width];
#pragma GCC unroll 2
    for (size_t v = 0; v < width; ++v) {
        const auto start = Ops::begin(p.start != nullptr ? p.start + column + v * 16 : nullptr);
#pragma GCC unroll 12
        for (size_t r = 0; r < height; ++r)
            sum[r][v] = start;
    }
    const uint32_t* b = p.b + column * p.groups;
    const size_t stride = p.stride, stride3 = 3 * stride, step = p.step;
    const uint32_t* group[3] = {p.a, p.a + 4 * stride, p.a + 8 * stride};
    for (size_t k = 0; k < p.groups; ++k, b += width * 16) {
        const __m512i first = _mm512_loadu_si512(b), second = _mm512_loadu_si512(b + (width - 1) * 16);
#pragma GCC unroll 12
        for (size_t r = 0; r < height; ++r) {
            const size_t in_group = r % 4;
            const uint32_t* place = group[r / 4] + (in_group == 3 ? stride3 : in_group * stride);
            const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(*place));
            sum[r][0] = Ops::add(sum[r][0], value, first);
            if constexpr (width == 2) sum[r][1] = Ops::add(sum[r][1], value, second);
        }
        // Three pointers, not twelve: GCC would keep one a row, half of them in memory.
#pragma GCC unroll 3
        for (auto& rows : group) {
            rows += step;
            asm("" : "+r"(rows));
        }
    }
#pragma GCC unroll 2
    for (size_t v = 0; v < width; ++v) {
        const size_t at = column + v * 16;
        const __m512 scale =
            p.column_scale != nullptr ? _mm512_loadu_ps(p.column_scale + at) : _mm512_set1_ps(1.0F);
#pragma GCC unroll 12
        for (size_t r = 0; r < height; ++r) {
            __m512 value = _mm512_mul_ps(Ops::floats(sum[r][v]), scale);
            if (p.row_scale != nullptr) value = _mm512_mul_ps(value, _mm512_set1_ps(p.row_scale[r]));
            _mm512_storeu_ps(p.y + r * p.y_stride + at, value);
        }
    }
}

template <class Ops, size_t height, size_t width>
inline void attention_tile_of(size_t count, const NarrowProduct& product, size_t column) {
    if constexpr (height > 0) {
        if (count == height) {
            attention_tile<Ops, height, width>(product, column);
        } else {
            attention_tile_of<Ops, height - 1, width>(count, product, column);
        }
    }
}

// At most attention_query_block rows times all panels.
template <class Ops>
inline void multiply_narrow(const NarrowProduct& product, size_t rows) {
    for (size_t column = 0; column < product.columns; column += attention_columns) {
        if (product.columns - column > 16) {
            attention_tile_of<Ops, attention_query_block, 2>(rows, product, column);
        } else {
            attention_tile_of<Ops, attention_query_block, 1>(rows, product, column);
        }
    }
}

}  // namespace
}  // namespace espalier
