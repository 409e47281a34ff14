// The register-blocked product under dense layers, attention and leaves:
//
//   C[m, :] (+)= bias + sum_k A[m, k] * B[k, :]
//
// Rows of A and C are given by functions of the row, so that scattered tokens need no gathering; B is
// row-major with a stride. Each sum runs over k in order, whatever the block it falls in: a row's result does
// not depend on how many rows are computed with it.
#pragma once

#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

// Rows of a tile: with 4 vectors a row, 24 of the 32 registers of AVX-512 and NEON are sums (6 x 4), and 12
// of the 16 of AVX2 with 3 (4 x 3).
template <class Arch>
struct TileShape {
    static constexpr size_t rows = 6, vectors = 4;
};
#if defined(__AVX2__)
template <>
struct TileShape<xsimd::fma3<xsimd::avx2>> {
    static constexpr size_t rows = 4, vectors = 3;
};
#endif

struct TileJob {
    size_t depth = 0;          // k
    const float* b = nullptr;  // readable to a whole vector past `columns`
    size_t b_stride = 0;
    const float* bias = nullptr;  // [columns] readable to a whole vector, or null
    bool accumulate = false;      // start from C
    size_t columns = 0;           // valid columns from b on
};

template <class Arch, size_t rows, size_t vectors>
inline void tile(const TileJob& job, const float* const* a, float* const* c) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    const size_t tail =
        job.columns < vectors * w ? job.columns % w : 0;  // of the last vector; 0: it is whole
    V sum[rows][vectors];
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 8
        for (size_t v = 0; v < vectors; ++v) {
            sum[r][v] = job.bias != nullptr ? V::load_unaligned(job.bias + v * w) : V(0.0F);
            if (!job.accumulate) continue;
            const bool whole = tail == 0 || v + 1 < vectors;
            sum[r][v] = sum[r][v] +
                        (whole ? V::load_unaligned(c[r] + v * w) : load_partial<Arch>(c[r] + v * w, tail));
        }
    }
    const float* b = job.b;
    for (size_t k = 0; k < job.depth; ++k, b += job.b_stride) {
        V column[vectors];
#pragma GCC unroll 8
        for (size_t v = 0; v < vectors; ++v)
            column[v] = V::load_unaligned(b + v * w);
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; ++r) {
            const V value(a[r][k]);
#pragma GCC unroll 8
            for (size_t v = 0; v < vectors; ++v)
                sum[r][v] = xsimd::fma(value, column[v], sum[r][v]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < rows; ++r) {
#pragma GCC unroll 8
        for (size_t v = 0; v < vectors; ++v) {
            if (tail == 0 || v + 1 < vectors) {
                sum[r][v].store_unaligned(c[r] + v * w);
            } else {
                store_partial<Arch>(c[r] + v * w, sum[r][v], tail);
            }
        }
    }
}

// All rows of one strip of at most `vectors` vectors: full tiles, then 2 rows, then 1.
template <class Arch, size_t vectors, class RowsA, class RowsC>
inline void strip(const TileJob& job, size_t rows, const RowsA& row_a, const RowsC& row_c) {
    constexpr size_t height = TileShape<Arch>::rows;
    const float* a[height];
    float* c[height];
    size_t r = 0;
    const auto point = [&](size_t count) {
        for (size_t i = 0; i < count; ++i) {
            a[i] = row_a(r + i);
            c[i] = row_c(r + i);
        }
    };
    for (; r + height <= rows; r += height) {
        point(height);
        tile<Arch, height, vectors>(job, a, c);
    }
    for (; r + 2 <= rows; r += 2) {
        point(2);
        tile<Arch, 2, vectors>(job, a, c);
    }
    for (; r < rows; ++r) {
        point(1);
        tile<Arch, 1, vectors>(job, a, c);
    }
}

// row_a(r): row r of A, [depth]. row_c(r): where row r of C starts. job.columns may be anything.
template <class Arch, class RowsA, class RowsC>
inline void multiply(const TileJob& job, size_t rows, const RowsA& row_a, const RowsC& row_c) {
    constexpr size_t w = lanes<Arch>, width = TileShape<Arch>::vectors * w;
    for (size_t start = 0; start < job.columns; start += width) {
        TileJob part = job;
        part.b = job.b + start;
        part.bias = job.bias != nullptr ? job.bias + start : nullptr;
        part.columns = job.columns - start < width ? job.columns - start : width;
        const auto shifted_c = [&](size_t r) { return row_c(r) + start; };
        switch ((part.columns + w - 1) / w) {
            case 1:
                strip<Arch, 1>(part, rows, row_a, shifted_c);
                break;
            case 2:
                strip<Arch, 2>(part, rows, row_a, shifted_c);
                break;
            case 3:
                strip<Arch, 3>(part, rows, row_a, shifted_c);
                break;
            default:
                strip<Arch, 4>(part, rows, row_a, shifted_c);
                break;
        }
    }
}

}  // namespace
}  // namespace espalier
