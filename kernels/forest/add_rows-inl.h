// The output of a token: y (+)= bias + sum over the path of a_n * row_n, with the sums in registers while all
// rows of the path pass, so that y is touched once.
//
// Rows of bf16 and 8 bits are interleaved as they pass, two or four levels of the path value by value, so
// that one instruction multiplies a pair or a quad of them by as many activations. (Rows stored interleaved
// would save the shuffles, but are larger: every node would repeat its parents' values. That took longer.)
#pragma once

#include "kernels/forest/rows-inl.h"
#include "kernels/forest/walk-inl.h"

namespace espalier {
namespace {

// Where a token's output goes. `stream`: past the caches, for outputs that will have left them before they
// are read; only for whole vectors at 64-byte aligned rows.
struct OutputRow {
    float* y = nullptr;
    const float* bias = nullptr;  // [hidden], or null
    size_t hidden = 0;
    bool accumulate = false;
    bool stream = false;
};

template <class Arch>
inline void store_streaming(float* target, Floats<Arch> value) {
#if defined(__AVX512F__)
    _mm512_stream_ps(target, value);
#elif defined(__AVX2__)
    _mm256_stream_ps(target, value);
#else
    value.store_unaligned(target);
#endif
}

// Streamed stores are seen by other threads only behind a fence.
inline void end_streaming() {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

// The first `valid` values of a vector of y.
template <class Arch>
inline void put(const OutputRow& out, size_t i, size_t valid, Floats<Arch> value) {
    if (valid == lanes<Arch>) {
        if (out.accumulate) value = value + Floats<Arch>::load_unaligned(out.y + i);
        if (out.bias != nullptr) value = value + Floats<Arch>::load_unaligned(out.bias + i);
        if (out.stream) {
            store_streaming<Arch>(out.y + i, value);
        } else {
            value.store_unaligned(out.y + i);
        }
        return;
    }
    if (out.accumulate) value = value + load_partial<Arch>(out.y + i, valid);
    if (out.bias != nullptr) value = value + load_partial<Arch>(out.bias + i, valid);
    store_partial<Arch>(out.y + i, value, valid);
}

template <class Arch>
inline Floats<Arch> load_floats(const float* row) {
    return Floats<Arch>::load_unaligned(row);
}
template <class Arch, class Value>
inline Floats<Arch> load_floats(const Value* row) {
    return load_widened(row);
}
template <class Arch, class Value>
inline Floats<Arch> load_floats_partial(const Value* row, size_t valid) {
    alignas(64) Value values[lanes<Arch>] = {};
    __builtin_memcpy(values, row, valid * sizeof(Value));
    return load_floats<Arch>(values);
}

// Everything below takes `tokens` tokens that share their rows, each with its own activations: a row is
// loaded (and widened, and interleaved) once for all. A token's sum runs in the same order whatever `tokens`
// is.

// Vectors of y that are summed at once: 8 registers and more, so that one broadcast of an activation serves
// many loads, and 16 at most.
template <size_t tokens>
inline constexpr size_t block_vectors = tokens == 1 ? 8 : 4;
template <class Arch>
inline constexpr size_t block_columns = 8 * lanes<Arch>;

// Activations and the rows that they multiply. 8-bit: whole steps, and a tree's sum times its scale is what
// it adds; the others: all trees are one path.
// Activations lie a lane a token (path-inl.h): those of the next level are `lanes` further on.
template <class Value>
struct RowPath {
    const float* a = nullptr;            // [trees, levels, lanes]
    const Value* const* rows = nullptr;  // [trees, levels]
    size_t trees = 0, levels = 0, lanes = 0;
    const float* scales = nullptr;  // 8-bit: [trees, lanes]
};

// sum[t][v] = of tree k, over its levels, a * row. Of 8 bits these are whole numbers below 2^24: exact, as
// integer products are.
template <class Arch, size_t tokens, size_t vectors, class Value>
[[gnu::always_inline]] inline void sum_rows(const RowPath<Value>& path, size_t k, size_t i,
                                            Floats<Arch> (&sum)[tokens][vectors]) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const Value* const* rows = path.rows + k * path.levels;
    const float* a = path.a + k * path.levels * path.lanes;
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
        for (size_t v = 0; v < vectors; ++v)
            sum[t][v] = V(0.0F);
    }
    for (size_t n = 0; n < path.levels; ++n) {
        V row[vectors];
#pragma GCC unroll 8
        for (size_t v = 0; v < vectors; ++v)
            row[v] = load_floats<Arch>(rows[n] + i + v * w);
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
            const V factor(a[n * path.lanes + t]);
#pragma GCC unroll 8
            for (size_t v = 0; v < vectors; ++v)
                sum[t][v] = xsimd::fma(factor, row[v], sum[t][v]);
        }
    }
}

template <class Arch, size_t tokens, size_t vectors, class Value>
inline void add_columns(const OutputRow* out, const RowPath<Value>& path, size_t i) {
    using V = Floats<Arch>;
    V y[tokens][vectors];
    sum_rows<Arch>(path, 0, i, y);
    if constexpr (sizeof(Value) == 1) {
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
            for (size_t v = 0; v < vectors; ++v)
                y[t][v] = y[t][v] * V(path.scales[t]);
        }
        for (size_t k = 1; k < path.trees; ++k) {
            V sum[tokens][vectors];
            sum_rows<Arch>(path, k, i, sum);
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
                for (size_t v = 0; v < vectors; ++v)
                    y[t][v] = xsimd::fma(sum[t][v], V(path.scales[k * path.lanes + t]), y[t][v]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
        for (size_t v = 0; v < vectors; ++v)
            put<Arch>(out[t], i + v * lanes<Arch>, lanes<Arch>, y[t][v]);
    }
}

// The columns from i to `end`, fewer than a vector's.
template <class Arch, class Value>
inline void add_last_columns(const OutputRow& out, const RowPath<Value>& path, size_t t, size_t i,
                             size_t end) {
    using V = Floats<Arch>;
    V y(0.0F);
    for (size_t k = 0; k < path.trees; ++k) {
        V sum(0.0F);
        for (size_t n = k * path.levels; n < (k + 1) * path.levels; ++n)
            sum = xsimd::fma(V(path.a[n * path.lanes + t]),
                             load_floats_partial<Arch>(path.rows[n] + i, end - i), sum);
        y = sizeof(Value) == 1 ? xsimd::fma(sum, V(path.scales[k * path.lanes + t]), y) : sum;
    }
    put<Arch>(out, i, end - i, y);
}

// The block of columns from i on, or what is left of it.
template <class Arch, size_t tokens, class Value>
inline void add_block(const OutputRow* out, const RowPath<Value>& path, size_t i) {
    constexpr size_t w = lanes<Arch>, step = block_vectors<tokens> * w;
    const size_t hidden = out[0].hidden;
    const size_t end = hidden - i < block_columns<Arch> ? hidden : i + block_columns<Arch>;
    for (; i + step <= end; i += step)
        add_columns<Arch, tokens, block_vectors<tokens>>(out, path, i);
    for (; i + w <= end; i += w)
        add_columns<Arch, tokens, 1>(out, path, i);
    for (size_t t = 0; t < tokens && i < end; ++t)
        add_last_columns<Arch>(out[t], path, t, i, end);
}

// Activations as words, and the rows they meet: whole words, so that the path of a tree may end with rows
// that count nothing. 8-bit: each tree has a scale and a start.
template <class Value>
struct WordPath {
    const uint32_t* words = nullptr;     // [trees, words of a path, lanes]
    const Value* const* rows = nullptr;  // [trees, words of a path * values of a word]
    size_t trees = 0, words_a_tree = 0, lanes = 0;
    const float* scales = nullptr;    // [trees, lanes]
    const int32_t* starts = nullptr;  // [trees, lanes]
};

#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
inline constexpr size_t word_columns = 64;
// Blocks of so many columns that a lone token's sums need to run side by side.
inline constexpr size_t word_blocks = 2;

// Four vectors of y from column i on.
inline void put_four(const OutputRow& out, size_t i, __m512 (&value)[4]) {
    if (out.accumulate) {
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; ++v)
            value[v] = _mm512_add_ps(value[v], _mm512_loadu_ps(out.y + i + 16 * v));
    }
    if (out.bias != nullptr) {
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; ++v)
            value[v] = _mm512_add_ps(value[v], _mm512_loadu_ps(out.bias + i + 16 * v));
    }
    if (out.stream) {
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; ++v)
            _mm512_stream_ps(out.y + i + 16 * v, value[v]);
    } else {
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; ++v)
            _mm512_storeu_ps(out.y + i + 16 * v, value[v]);
    }
}
#endif

#if defined(__AVX512BF16__)
// Two rows of 64 columns, value by value: the pairs of columns 0-3, 8-11, 16-19 and 24-27, those between
// them, and the same of the second half.
[[gnu::always_inline]] inline void interleave(const uint16_t* const* rows, size_t i, __m512i (&pairs)[4]) {
    const __m512i a0 = _mm512_loadu_si512(rows[0] + i), b0 = _mm512_loadu_si512(rows[1] + i);
    const __m512i a1 = _mm512_loadu_si512(rows[0] + i + 32), b1 = _mm512_loadu_si512(rows[1] + i + 32);
    pairs[0] = _mm512_unpacklo_epi16(a0, b0);
    pairs[1] = _mm512_unpackhi_epi16(a0, b0);
    pairs[2] = _mm512_unpacklo_epi16(a1, b1);
    pairs[3] = _mm512_unpackhi_epi16(a1, b1);
}

// `blocks` times 64 columns from i on.
template <size_t tokens, size_t blocks>
inline void add_words(const OutputRow* out, const WordPath<uint16_t>& path, size_t i) {
    const size_t words = path.trees * path.words_a_tree;
    __m512 sum[tokens][blocks][4];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b)
            sum[t][b][0] = sum[t][b][1] = sum[t][b][2] = sum[t][b][3] = _mm512_setzero_ps();
    }
    for (size_t n = 0; n < words; ++n) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b) {
            __m512i pairs[4];
            interleave(path.rows + 2 * n, i + b * word_columns, pairs);
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; ++t) {
                const __m512i factor = _mm512_set1_epi32(static_cast<int>(path.words[n * path.lanes + t]));
#pragma GCC unroll 4
                for (size_t v = 0; v < 4; ++v)
                    sum[t][b][v] = add_pair_products(sum[t][b][v], pairs[v], factor);
            }
        }
    }
    const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i back = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b) {
            const __m512(&s)[4] = sum[t][b];
            __m512 y[4] = {
                _mm512_permutex2var_ps(s[0], front, s[1]), _mm512_permutex2var_ps(s[0], back, s[1]),
                _mm512_permutex2var_ps(s[2], front, s[3]), _mm512_permutex2var_ps(s[2], back, s[3])};
            put_four(out[t], i + b * word_columns, y);
        }
    }
}
#elif defined(__AVX512VNNI__)
// Four rows of 64 columns, value by value, moved up by 128 (the top bit turned): lane L of quads[j] holds
// columns 16 L + 4 j to 16 L + 4 j + 3.
[[gnu::always_inline]] inline void interleave(const int8_t* const* rows, size_t i, __m512i (&quads)[4]) {
    const __m512i top = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i r0 = _mm512_loadu_si512(rows[0] + i), r1 = _mm512_loadu_si512(rows[1] + i),
                  r2 = _mm512_loadu_si512(rows[2] + i), r3 = _mm512_loadu_si512(rows[3] + i);
    const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1),
                  low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
    quads[0] = _mm512_xor_si512(_mm512_unpacklo_epi16(low01, low23), top);
    quads[1] = _mm512_xor_si512(_mm512_unpackhi_epi16(low01, low23), top);
    quads[2] = _mm512_xor_si512(_mm512_unpacklo_epi16(high01, high23), top);
    quads[3] = _mm512_xor_si512(_mm512_unpackhi_epi16(high01, high23), top);
}

// vpdpbusd multiplies unsigned by signed: rows are moved up by 128, and a sum starts with
// 128 * (sum of the activations) less. `blocks` times 64 columns from i on.
template <size_t tokens, size_t blocks>
inline void add_words(const OutputRow* out, const WordPath<int8_t>& path, size_t i) {
    __m512 y[tokens][blocks][4];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t b = 0; b < blocks; ++b)
            y[t][b][0] = y[t][b][1] = y[t][b][2] = y[t][b][3] = _mm512_setzero_ps();
    }
    for (size_t k = 0; k < path.trees; ++k) {
        __m512i sum[tokens][blocks][4];
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
            const __m512i start = _mm512_set1_epi32(path.starts[k * path.lanes + t]);
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; ++b)
                sum[t][b][0] = sum[t][b][1] = sum[t][b][2] = sum[t][b][3] = start;
        }
        for (size_t word = k * path.words_a_tree; word < (k + 1) * path.words_a_tree; ++word) {
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; ++b) {
                __m512i quads[4];
                interleave(path.rows + 4 * word, i + b * word_columns, quads);
#pragma GCC unroll 4
                for (size_t t = 0; t < tokens; ++t) {
                    const __m512i factor =
                        _mm512_set1_epi32(static_cast<int>(path.words[word * path.lanes + t]));
#pragma GCC unroll 4
                    for (size_t v = 0; v < 4; ++v)
                        sum[t][b][v] = add_quad_products(sum[t][b][v], quads[v], factor);
                }
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
            const __m512 scale = _mm512_set1_ps(path.scales[k * path.lanes + t]);
#pragma GCC unroll 4
            for (size_t b = 0; b < blocks; ++b) {
#pragma GCC unroll 4
                for (size_t v = 0; v < 4; ++v)
                    y[t][b][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][b][v]), scale, y[t][b][v]);
            }
        }
    }
    // A transpose of 128-bit lanes.
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 4
        for (size_t block = 0; block < blocks; ++block) {
            const __m512(&q)[4] = y[t][block];
            const __m512 a = _mm512_shuffle_f32x4(q[0], q[1], 0x44),
                         b = _mm512_shuffle_f32x4(q[2], q[3], 0x44),
                         c = _mm512_shuffle_f32x4(q[0], q[1], 0xee),
                         d = _mm512_shuffle_f32x4(q[2], q[3], 0xee);
            __m512 ordered[4] = {_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd),
                                 _mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd)};
            put_four(out[t], i + block * word_columns, ordered);
        }
    }
}
#elif defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
// Zips take so long that four sums are enough.
inline constexpr size_t word_columns = 16, word_blocks = 1;
#else
inline constexpr size_t word_columns = 1, word_blocks = 1;  // not used: no such products
#endif

// Levels of a path that one product takes: 1 where there is no such product for the type here.
#if defined(__AVX512BF16__)
template <TensorType type>
inline constexpr size_t levels_a_word = type == TensorType::bf16 ? 2 : 1;
#elif defined(__AVX512VNNI__)
template <TensorType type>
inline constexpr size_t levels_a_word = type == TensorType::s8 ? 4 : 1;
#elif defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#if defined(__ARM_FEATURE_DOTPROD)
inline constexpr bool has_quads = true;
#else
inline constexpr bool has_quads = false;
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
inline constexpr bool has_pairs = true;
#else
inline constexpr bool has_pairs = false;
#endif
template <TensorType type>
inline constexpr size_t levels_a_word = type == TensorType::s8&& has_quads ? 4
                                        : type == TensorType::bf16&& has_pairs ? 2
                                                                               : 1;
#else
template <TensorType type>
inline constexpr size_t levels_a_word = 1;
#endif

inline float through_bf16(float value) {
    const uint32_t bits = static_cast<uint32_t>(rounded_to_bf16(value)) << 16;
    __builtin_memcpy(&value, &bits, sizeof(bits));
    return value;
}

}  // namespace
}  // namespace espalier
