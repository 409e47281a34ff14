// The output of a token: y (+)= bias + sum over the path of a_n * row_n, with the sums in registers while all
// rows of the path pass, so that y is touched once.
//
// Rows of bf16 and 8 bits are interleaved as they pass, two or four levels of the path value by value, so
// that one instruction multiplies a pair or a quad of them by as many activations. (Rows stored interleaved
// would save the shuffles, but are larger: every node would repeat its parents' values. That took longer.)
#pragma once

#include <cmath>

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
template <class Value>
struct RowPath {
    const float* a = nullptr;            // [tokens, trees, levels]
    const Value* const* rows = nullptr;  // [trees, levels]
    size_t trees = 0, levels = 0;
    const float* scales = nullptr;  // 8-bit: [tokens, trees]
};

// sum[t][v] = of tree k, over its levels, a * row. Of 8 bits these are whole numbers below 2^24: exact, as
// integer products are.
template <class Arch, size_t tokens, size_t vectors, class Value>
[[gnu::always_inline]] inline void sum_rows(const RowPath<Value>& path, size_t k, size_t i,
                                            Floats<Arch> (&sum)[tokens][vectors]) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const Value* const* rows = path.rows + k * path.levels;
    const float* a = path.a + k * path.levels;
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
            const V factor(a[t * path.trees * path.levels + n]);
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
                y[t][v] = y[t][v] * V(path.scales[t * path.trees]);
        }
        for (size_t k = 1; k < path.trees; ++k) {
            V sum[tokens][vectors];
            sum_rows<Arch>(path, k, i, sum);
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 8
                for (size_t v = 0; v < vectors; ++v)
                    y[t][v] = xsimd::fma(sum[t][v], V(path.scales[t * path.trees + k]), y[t][v]);
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
            sum = xsimd::fma(V(path.a[t * path.trees * path.levels + n]),
                             load_floats_partial<Arch>(path.rows[n] + i, end - i), sum);
        y = sizeof(Value) == 1 ? xsimd::fma(sum, V(path.scales[t * path.trees + k]), y) : sum;
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
    const uint32_t* words = nullptr;     // [tokens, trees, words of a path]
    const Value* const* rows = nullptr;  // [trees, words of a path * values of a word]
    size_t trees = 0, words_a_tree = 0;
    const float* scales = nullptr;    // [tokens, trees]
    const int32_t* starts = nullptr;  // [tokens, trees]
};

#if defined(__AVX512BF16__)
inline constexpr size_t word_columns = 64;

// Unpacking leaves the two halves of every 128-bit lane in two registers, which are put in order at the end.
template <size_t tokens>
inline void add_words(const OutputRow* out, const WordPath<uint16_t>& path, size_t i) {
    using Arch = xsimd::avx512bw;
    const size_t words = path.trees * path.words_a_tree;
    __m512 low0[tokens], high0[tokens], low1[tokens], high1[tokens];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t)
        low0[t] = high0[t] = low1[t] = high1[t] = _mm512_setzero_ps();
    for (size_t n = 0; n < words; ++n) {
        const uint16_t* const* rows = path.rows + 2 * n;
        const __m512i a0 = _mm512_loadu_si512(rows[0] + i), b0 = _mm512_loadu_si512(rows[1] + i);
        const __m512i a1 = _mm512_loadu_si512(rows[0] + i + 32), b1 = _mm512_loadu_si512(rows[1] + i + 32);
        const __m512i pairs_low0 = _mm512_unpacklo_epi16(a0, b0), pairs_high0 = _mm512_unpackhi_epi16(a0, b0),
                      pairs_low1 = _mm512_unpacklo_epi16(a1, b1), pairs_high1 = _mm512_unpackhi_epi16(a1, b1);
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
            const __m512i factor = _mm512_set1_epi32(static_cast<int>(path.words[t * words + n]));
            low0[t] = add_pair_products(low0[t], pairs_low0, factor);
            high0[t] = add_pair_products(high0[t], pairs_high0, factor);
            low1[t] = add_pair_products(low1[t], pairs_low1, factor);
            high1[t] = add_pair_products(high1[t], pairs_high1, factor);
        }
    }
    const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i back = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
        put<Arch>(out[t], i, 16, _mm512_permutex2var_ps(low0[t], front, high0[t]));
        put<Arch>(out[t], i + 16, 16, _mm512_permutex2var_ps(low0[t], back, high0[t]));
        put<Arch>(out[t], i + 32, 16, _mm512_permutex2var_ps(low1[t], front, high1[t]));
        put<Arch>(out[t], i + 48, 16, _mm512_permutex2var_ps(low1[t], back, high1[t]));
    }
}
#elif defined(__AVX512VNNI__)
inline constexpr size_t word_columns = 64;

// vpdpbusd multiplies unsigned by signed: rows are moved up by 128 (the top bit turned), and a sum starts
// with 128 * (sum of the activations) less.
template <size_t tokens>
inline void add_words(const OutputRow* out, const WordPath<int8_t>& path, size_t i) {
    using Arch = xsimd::avx512bw;
    const __m512i top = _mm512_set1_epi8(static_cast<char>(0x80));
    __m512 y[tokens][4];
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t)
        y[t][0] = y[t][1] = y[t][2] = y[t][3] = _mm512_setzero_ps();
    for (size_t k = 0; k < path.trees; ++k) {
        __m512i sum[tokens][4];
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t)
            sum[t][0] = sum[t][1] = sum[t][2] = sum[t][3] =
                _mm512_set1_epi32(path.starts[t * path.trees + k]);
        for (size_t n = 0; n < path.words_a_tree; ++n) {
            const size_t word = k * path.words_a_tree + n;
            const int8_t* const* rows = path.rows + 4 * word;
            const __m512i r0 = _mm512_loadu_si512(rows[0] + i), r1 = _mm512_loadu_si512(rows[1] + i),
                          r2 = _mm512_loadu_si512(rows[2] + i), r3 = _mm512_loadu_si512(rows[3] + i);
            const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1),
                          low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
            const __m512i quads0 = _mm512_xor_si512(_mm512_unpacklo_epi16(low01, low23), top),
                          quads1 = _mm512_xor_si512(_mm512_unpackhi_epi16(low01, low23), top),
                          quads2 = _mm512_xor_si512(_mm512_unpacklo_epi16(high01, high23), top),
                          quads3 = _mm512_xor_si512(_mm512_unpackhi_epi16(high01, high23), top);
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; ++t) {
                const __m512i factor = _mm512_set1_epi32(
                    static_cast<int>(path.words[t * path.trees * path.words_a_tree + word]));
                sum[t][0] = add_quad_products(sum[t][0], quads0, factor);
                sum[t][1] = add_quad_products(sum[t][1], quads1, factor);
                sum[t][2] = add_quad_products(sum[t][2], quads2, factor);
                sum[t][3] = add_quad_products(sum[t][3], quads3, factor);
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; ++t) {
            const __m512 scale = _mm512_set1_ps(path.scales[t * path.trees + k]);
#pragma GCC unroll 4
            for (size_t part = 0; part < 4; ++part)
                y[t][part] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][part]), scale, y[t][part]);
        }
    }
    // Lane L of y[j] holds columns 16 L + 4 j ...: a transpose of 128-bit lanes.
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
        const __m512 a = _mm512_shuffle_f32x4(y[t][0], y[t][1], 0x44),
                     b = _mm512_shuffle_f32x4(y[t][2], y[t][3], 0x44),
                     c = _mm512_shuffle_f32x4(y[t][0], y[t][1], 0xee),
                     d = _mm512_shuffle_f32x4(y[t][2], y[t][3], 0xee);
        put<Arch>(out[t], i, 16, _mm512_shuffle_f32x4(a, b, 0x88));
        put<Arch>(out[t], i + 16, 16, _mm512_shuffle_f32x4(a, b, 0xdd));
        put<Arch>(out[t], i + 32, 16, _mm512_shuffle_f32x4(c, d, 0x88));
        put<Arch>(out[t], i + 48, 16, _mm512_shuffle_f32x4(c, d, 0xdd));
    }
}
#else
inline constexpr size_t word_columns = 1;  // not used: no such products
#endif

// Levels of a path that one product takes: 1 where there is no such product for the type here.
#if defined(__AVX512BF16__)
template <TensorType type>
inline constexpr size_t levels_a_word = type == TensorType::bf16 ? 2 : 1;
#elif defined(__AVX512VNNI__)
template <TensorType type>
inline constexpr size_t levels_a_word = type == TensorType::s8 ? 4 : 1;
#else
template <TensorType type>
inline constexpr size_t levels_a_word = 1;
#endif

inline float through_bf16(float value) {
    const uint32_t bits = static_cast<uint32_t>(rounded_to_bf16(value)) << 16;
    __builtin_memcpy(&value, &bits, sizeof(bits));
    return value;
}

// a to whole steps of the returned scale, -127 to 127. Infinities and NaN have no 8-bit form: they make the
// scale NaN, and with it the token's whole output, on every instruction set. (Only a subnormal scale, itself
// rounded to few bits, lets the largest values pass 127.)
#if defined(__AVX512F__)
inline float round_to_steps(float* a, size_t count) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (size_t n = 0; n < count; n += 16)
        most = _mm512_max_epu32(
            most, _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes_of(count - n), a + n), magnitude));
    const uint32_t bits = _mm512_reduce_max_epu32(most);
    float largest = 0;
    __builtin_memcpy(&largest, &bits, sizeof(bits));
    const float scale = bits < 0x7f800000u ? largest / 127.0F : NAN;
    const __m512 top = _mm512_set1_ps(127.0F);
    for (size_t n = 0; n < count; n += 16) {
        const __mmask16 there = lanes_of(count - n), counts = scale > 0 ? there : 0;
        const __m512 steps =
            _mm512_maskz_div_ps(counts, _mm512_maskz_loadu_ps(there, a + n), _mm512_set1_ps(scale));
        const __m512 whole = _mm512_roundscale_ps(steps, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm512_mask_storeu_ps(
            a + n, there, _mm512_max_ps(_mm512_min_ps(whole, top), _mm512_sub_ps(_mm512_setzero_ps(), top)));
    }
    return scale;
}
#else
inline float round_to_steps(float* a, size_t count) {
    float largest = 0;
    bool finite = true;
    for (size_t n = 0; n < count; ++n) {
        const float magnitude = std::fabs(a[n]);
        finite = finite && magnitude <= 3.402823466e+38F;
        largest = magnitude > largest ? magnitude : largest;
    }
    const float scale = finite ? largest / 127.0F : NAN;
    for (size_t n = 0; n < count; ++n) {
        const float step = scale > 0 ? std::nearbyint(a[n] / scale) : 0.0F;
        a[n] = step > 127.0F ? 127.0F : step < -127.0F ? -127.0F : step;
    }
    return scale;
}
#endif

// Levels of a tree's path, rounded, to words: [ceil(levels / 2)] pairs of bf16, or [ceil(levels / 4)] quads
// of 8-bit steps.
inline void pack_pairs(const float* a, size_t levels, uint32_t* words) {
    for (size_t n = 0; n < levels; n += 2) {
        uint32_t first = 0, second = 0;
        __builtin_memcpy(&first, a + n, sizeof(first));
        if (n + 1 < levels) __builtin_memcpy(&second, a + n + 1, sizeof(second));
        words[n / 2] = (first >> 16) | (second & 0xffff0000u);
    }
}
#if defined(__AVX512F__)
// levels: a multiple of 4. Returns what a sum over rows that are moved up by 128 starts with.
inline int32_t pack_quads(const float* a, size_t levels, uint32_t* words) {
    __m512i sum = _mm512_setzero_si512();
    for (size_t n = 0; n < levels; n += 16) {
        const __mmask16 there = lanes_of(levels - n);
        const __m512i steps = _mm512_cvtps_epi32(_mm512_maskz_loadu_ps(there, a + n));
        _mm512_mask_cvtepi32_storeu_epi8(words + n / 4, there, steps);
        sum = _mm512_add_epi32(sum, steps);
    }
    return -128 * _mm512_reduce_add_epi32(sum);
}
#endif

}  // namespace
}  // namespace espalier
