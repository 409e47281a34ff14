// The register-blocked product with packed panels (panel.h), for rows of every type:
//
//   C[r, :] = finish(start + sum over sources of sum_k A[r, k] * B[k, :])
//
// Where rows of A lie is given by a function of the row, so that scattered tokens need no gathering; `start`
// and `finish` make and take a vector of sums, so that bias, scales and stores happen in registers. Each sum
// runs over k in order, whatever the tile it falls in: a row's result does not depend on its neighbours.
//
// PanelOps<Arch, type> says how a word of A meets a vector of B, by the best that the flags of the including
// file allow. Intrinsics where xsimd 8.1 lacks the operation.
#pragma once

#include <bit>

#include "kernels/cpu/simd-inl.h"
#include "kernels/dense/panel.h"

namespace espalier {
namespace {

// Rows and vectors of a tile: 24 of 32 registers are sums (6 x 4), or 12 of 16 (6 x 2); fewer rows where
// words of A must be split in two before they are multiplied.
template <class Arch>
inline constexpr bool many_registers = true;
#if defined(__AVX2__)
template <>
inline constexpr bool many_registers<xsimd::fma3<xsimd::avx2>> = false;
#endif

[[gnu::always_inline]] inline uint32_t load_word(const std::byte* place) {
    uint32_t word;
    __builtin_memcpy(&word, place, sizeof(word));
    return word;
}

template <class Arch, TensorType type>
struct PanelOps;

template <class Arch>
struct PanelOps<Arch, TensorType::f32> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = many_registers<Arch> ? 4 : 2;

    // sum += A's word of every row times the vectors at b.
    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        Sum column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = Sum::load_unaligned(reinterpret_cast<const float*>(b) + v * lanes<Arch>);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const Sum value(std::bit_cast<float>(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = xsimd::fma(value, column[v], sum[r][v]);
        }
    }
};

#if defined(__AVX512BF16__)
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = 4;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        __m512i column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = _mm512_loadu_si512(b + v * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = add_pair_products(sum[r][v], value, column[v]);
        }
    }
};
#elif defined(__ARM_NEON)
// As below; GCC 12 calls xsimd's shifts and casts as functions, in the middle of the loop.
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 4, vectors = 4;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        float32x4_t low[height], high[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            low[r] = vdupq_n_f32(std::bit_cast<float>(word(r) << 16));
            high[r] = vdupq_n_f32(std::bit_cast<float>(word(r) & 0xffff0000u));
        }
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const uint32x4_t pair = vld1q_u32(b + v * 4);
            const float32x4_t first = vreinterpretq_f32_u32(vshlq_n_u32(pair, 16));
            const float32x4_t second = vreinterpretq_f32_u32(vandq_u32(pair, vdupq_n_u32(0xffff0000u)));
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] = Sum(vfmaq_f32(vfmaq_f32(sum[r][v], first, low[r]), second, high[r]));
        }
    }
};
#else
// Both halves of a word widened to float32: two fused multiply-adds a word.
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    using Words = xsimd::batch<uint32_t, Arch>;
    static constexpr size_t rows = 4, vectors = many_registers<Arch> ? 4 : 2;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        Sum low[height], high[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            low[r] = Sum(std::bit_cast<float>(word(r) << 16));
            high[r] = Sum(std::bit_cast<float>(word(r) & 0xffff0000u));
        }
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const Words pair = Words::load_unaligned(b + v * lanes<Arch>);
            const Sum first = same_bits<Sum>(pair << 16);
            const Sum second = same_bits<Sum>(pair & Words(0xffff0000u));
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] = xsimd::fma(high[r], second, xsimd::fma(low[r], first, sum[r][v]));
        }
    }
};
#endif

// 8-bit: B's values stand 128 too high, so that sums hold `b_offset` = 128 times (sum of A's row) too much,
// which start_sums takes off; 0 where step has taken the 128 off itself. Sums are exact for k up to 2^31 /
// (255 * 127) = 66,311.
#if defined(__AVX512VNNI__)
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = __m512i;
    static constexpr size_t rows = 6, vectors = 4;
    static constexpr int32_t b_offset = 128;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Register (&sum)[height][width], const uint32_t* b,
                                            const Word& word) {
        __m512i column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = _mm512_loadu_si512(b + v * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = add_quad_products(sum[r][v], column[v], value);
        }
    }
};
#elif defined(__ARM_FEATURE_DOTPROD)
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = 4;
    static constexpr int32_t b_offset = 0;

    // sdot multiplies signed by signed: B's top bits are turned back, once for all rows of the tile.
    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        int8x16_t column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = vreinterpretq_s8_u32(veorq_u32(vld1q_u32(b + v * 4), vdupq_n_u32(0x80808080u)));
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const int8x16_t value = vreinterpretq_s8_u32(vdupq_n_u32(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = Sum(vdotq_s32(sum[r][v], column[v], value));
        }
    }
};
#elif defined(__ARM_NEON)
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 4, vectors = 4;
    static constexpr int32_t b_offset = 128;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        int16x8_t value[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r)
            value[r] = vmovl_s8(vcreate_s8(word(r) | static_cast<uint64_t>(word(r)) << 32));
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const uint8x16_t quads = vreinterpretq_u8_u32(vld1q_u32(b + v * 4));
            const int16x8_t first = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(quads)));
            const int16x8_t second = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(quads)));
            // A product is at most 255 * 128 in size: it fits 16 bits.
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r) {
                const int32x4_t pairs0 = vpaddlq_s16(vmulq_s16(first, value[r]));
                const int32x4_t pairs1 = vpaddlq_s16(vmulq_s16(second, value[r]));
                sum[r][v] = sum[r][v] + Sum(sums_of_neighbours(pairs0, pairs1));
            }
        }
    }
};
#else
// A word's even and odd bytes as 16-bit numbers: two vpmaddwd, which cannot overflow.
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = Sum;
    using Shorts = xsimd::batch<int16_t, Arch>;
    static constexpr size_t rows = 4, vectors = many_registers<Arch> ? 4 : 2;
    static constexpr int32_t b_offset = 128;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        Sum even[height], odd[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const Shorts value = same_bits<Shorts>(Sum(static_cast<int32_t>(word(r))));
            even[r] = same_bits<Sum>((value << 8) >> 8);
            odd[r] = same_bits<Sum>(value >> 8);
        }
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            using Words = xsimd::batch<uint32_t, Arch>;
            using Unsigned = xsimd::batch<uint16_t, Arch>;
            const Words quads = Words::load_unaligned(b + v * lanes<Arch>);
            const Sum first = same_bits<Sum>(quads & Words(0x00ff00ffu));
            const Sum second = same_bits<Sum>(same_bits<Unsigned>(quads) >> 8);
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] =
                    sum[r][v] + (sums_of_pairs<Arch>(first, even[r]) + sums_of_pairs<Arch>(second, odd[r]));
        }
    }
};
#endif

// One product's B: `b` is one panel of a packed matrix. Rows of A have its k in `groups` whole words from
// `first_word` on.
struct PanelSource {
    const uint32_t* b = nullptr;
    size_t groups = 0, first_word = 0;
};

struct PanelJob {
    PanelSource source[2];
    size_t sources = 0;
    size_t columns = 0;                // of the panel: its stride, in words
    const uint32_t* a_tail = nullptr;  // [rows]: a last word of A's rows, after those of the last source
    // Fetched meanwhile into the second-level cache: what the next product reads, `ahead_lines` cache lines a
    // tile.
    const std::byte* ahead = nullptr;
    size_t ahead_lines = 0;
};

template <class Ops>
inline size_t panel_tiles(size_t count) {
    return (count + Ops::rows - 1) / Ops::rows;
}

// What a tile fetches for the tiles after it, a line of each at a step, so that the misses stand in nobody's
// way: the first-level cache waits for only about two dozen at a time.
template <size_t height>
struct Fetcher {
    const std::byte* row[height];  // of the next tile
    size_t row_bytes = 0;          // how much of them
    const std::byte* ahead = nullptr;
    size_t lines = 0;  // left, from `ahead` on
    size_t at = 0, offset = 0;

    [[gnu::always_inline]] void step() {
        if (offset < row_bytes) {
            __builtin_prefetch(row[at] + offset);
            if (++at == height) {
                at = 0;
                offset += 64;
            }
        }
        if (lines > 0) {
            __builtin_prefetch(ahead, 0, 2);
            ahead += 64;
            --lines;
        }
    }
};

// Rows: functions of the row and of the tile, all inlined.
//   a(r)                    where A's row r begins
//   start(row, c, sums)     what the sums of the tile at row and column c begin with
//   finish(row, c, sums)    where they go
//   next(r, c), next_bytes(columns)
//                           what to fetch for row r of the next tile, which begins at column c of the panel:
//                           rows lie scattered and are too short for the processor to guess
template <class Ops, size_t height, size_t width, class Rows>
[[gnu::noinline]] void panel_tile(const PanelJob& job, const std::byte* ahead, size_t row, size_t column,
                                  const Rows& rows) {
    constexpr size_t w = Ops::Sum::size;
    typename Ops::Register sum[height][width];
    const std::byte* base[height];
    Fetcher<height> fetcher;
    fetcher.row_bytes = rows.next_bytes(width * w);
    fetcher.ahead = ahead;
    fetcher.lines = job.ahead_lines;
#pragma GCC unroll 8
    for (size_t r = 0; r < height; ++r) {
        base[r] = rows.a(row + r);
        fetcher.row[r] = rows.next(row + r + height, column);
    }
    rows.start(row, column, sum);
    for (size_t s = 0; s < job.sources; ++s) {
        const PanelSource& source = job.source[s];
        const uint32_t* b = source.b + column;
        const std::byte* a[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r)
            a[r] = base[r] + source.first_word * 4;
        for (size_t k = 0; k < source.groups; ++k, b += job.columns) {
            Ops::template step<height, width>(
                sum, b, [&](size_t r) __attribute__((always_inline)) { return load_word(a[r] + k * 4); });
            fetcher.step();
        }
        if (job.a_tail != nullptr && s + 1 == job.sources)
            Ops::template step<height, width>(
                sum, b, [&](size_t r) __attribute__((always_inline)) { return job.a_tail[row + r]; });
    }
    rows.finish(row, column, sum);
}

template <class Ops, size_t height, size_t width, class Rows>
inline void panel_tile_of(size_t count, const PanelJob& job, const std::byte* ahead, size_t row,
                          size_t column, const Rows& rows) {
    if constexpr (height > 0) {
        if (count == height) {
            panel_tile<Ops, height, width>(job, ahead, row, column, rows);
        } else {
            panel_tile_of<Ops, height - 1, width>(count, job, ahead, row, column, rows);
        }
    }
}

// All rows of `width` vectors of one panel, in tiles of nearly equal height: a last tile of one row would
// wait for its own sums. The job is not copied: a copy by vectors, just after its fields were written one by
// one, waits for the stores.
template <class Ops, size_t width, class Rows>
inline void panel_strip(const PanelJob& job, size_t count, size_t column, const Rows& rows) {
    const std::byte* ahead = job.ahead;
    for (size_t row = 0, left = panel_tiles<Ops>(count); left > 0; --left) {
        const size_t height = (count - row + left - 1) / left;
        panel_tile_of<Ops, Ops::rows, width>(height, job, ahead, row, column, rows);
        ahead += job.ahead_lines * 64;
        row += height;
    }
}

// C of `count` rows and the columns of one panel.
template <class Ops, class Rows>
inline void multiply_panel(const PanelJob& job, size_t count, const Rows& rows) {
    constexpr size_t w = Ops::Sum::size;
    static_assert(Ops::vectors * w == 16 || (w == 16 && Ops::vectors == 4));
    for (size_t column = 0; column < job.columns; column += Ops::vectors * w) {
        // A panel's columns are a whole number of 16: only wider tiles have narrower last ones.
        if constexpr (Ops::vectors * w == 16) {
            panel_strip<Ops, Ops::vectors>(job, count, column, rows);
        } else {
            switch ((job.columns - column) / w) {
                case 1:
                    panel_strip<Ops, 1>(job, count, column, rows);
                    break;
                case 2:
                    panel_strip<Ops, 2>(job, count, column, rows);
                    break;
                case 3:
                    panel_strip<Ops, 3>(job, count, column, rows);
                    break;
                default:
                    panel_strip<Ops, Ops::vectors>(job, count, column, rows);
                    break;
            }
        }
    }
}

// What the sums of a tile begin with: the bias; in 8 bits, what B's values stand too high by, of_row(r) being
// the sum of A's row r (the bias waits until sums are float32).
template <class Arch, TensorType type, size_t height, size_t width, class Register, class SumOf>
[[gnu::always_inline]] inline void start_sums(const float* bias, const SumOf& of_row,
                                              Register (&sum)[height][width]) {
#pragma GCC unroll 8
    for (size_t r = 0; r < height; ++r) {
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            if constexpr (type == TensorType::s8) {
                sum[r][v] = Integers<Arch>(-PanelOps<Arch, type>::b_offset * of_row(r));
            } else {
                sum[r][v] = Floats<Arch>::load_unaligned(bias + v * lanes<Arch>);
            }
        }
    }
}

}  // namespace
}  // namespace espalier
