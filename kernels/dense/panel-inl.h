// The register-blocked product with packed panels (panel.h), for rows of every type:
//
//   C[r, :] = finish(start + sum over sources of sum_k A[r, k] * B[k, :])
//
// Where rows of A lie is given by a function of the row, so that scattered tokens need no gathering; `start`
// and `finish` make and take a vector of sums, so that bias, scales and stores happen in registers. Each sum
// runs over k in order, whatever the tile it falls in: a row's result does not depend on its neighbours.
#pragma once

#include "kernels/dense/panel_ops-inl.h"
#if defined(__ARM_NEON)
#include "kernels/dense/panel_neon-inl.h"
#endif

namespace espalier {
namespace {

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

// A tile's inner loop, a word of A at a time.
template <class Ops, size_t height, size_t width>
[[gnu::always_inline]] inline void multiply_words(const PanelJob& job, const std::byte* const (&base)[height],
                                                  size_t row, size_t column, Fetcher<height>& fetcher,
                                                  typename Ops::Register (&sum)[height][width]) {
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
}

// The same by instructions that multiply two rows of A by two columns of B, two words of each at a
// time (Ops::Pairs): sums are in another order meanwhile.
template <class Ops, size_t height, size_t width>
[[gnu::always_inline]] inline void multiply_pairs(const PanelJob& job, const std::byte* const (&base)[height],
                                                  size_t row, size_t column, Fetcher<height>& fetcher,
                                                  typename Ops::Register (&sum)[height][width]) {
    typename Ops::template Pairs<height, width> pairs(sum);
    for (size_t s = 0; s < job.sources; ++s) {
        const PanelSource& source = job.source[s];
        const uint32_t* b = source.b + column;
        const size_t first = source.first_word * 4;
        const bool has_tail = job.a_tail != nullptr && s + 1 == job.sources;
        size_t k = 0;
        for (; k + 2 <= source.groups; k += 2, b += 2 * job.columns) {
            pairs.step(
                b, b + job.columns, [&](size_t r) __attribute__((always_inline)) {
                    return load_words(base[r] + first + k * 4);
                });
            fetcher.step();
        }
        const auto words = [&](size_t r) __attribute__((always_inline)) {
            const uint64_t tail = has_tail ? job.a_tail[row + r] : 0;
            return k < source.groups ? load_word(base[r] + first + k * 4) | tail << 32 : tail;
        };
        if (k < source.groups && has_tail) {
            pairs.step(b, b + job.columns, words);
        } else if (k < source.groups || has_tail) {
            pairs.last_step(b, words);
        }
    }
    pairs.rows(sum);
}

// Whether tiles of this height are multiplied so.
template <class Ops, size_t height>
constexpr bool uses_pairs() {
    if constexpr (requires { Ops::least_rows_of_pairs; }) {
        return height >= Ops::least_rows_of_pairs;
    } else {
        return false;
    }
}

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
    if constexpr (uses_pairs<Ops, height>()) {
        multiply_pairs<Ops, height, width>(job, base, row, column, fetcher, sum);
    } else {
        multiply_words<Ops, height, width>(job, base, row, column, fetcher, sum);
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
