// Products of small matrices in shared memory by a block of 128 threads: 32 rows x 64 columns of sums.
// bfloat16 on tensor cores (sums float32), float32 by ordinary multiply-adds.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/mma.cuh"

namespace espalier::cuda {

inline constexpr unsigned tile_threads = 128;
inline constexpr uint32_t tile_rows = 32, tile_columns = 64;
// Values between rows of 64 in shared memory: 16 bytes more than the row, so that rows begin in other banks.
template <class T>
inline constexpr uint32_t tile_stride = 64 + 16 / sizeof(T);
inline constexpr uint32_t sum_stride = tile_columns + 4;

template <class T>
class Tile;

template <>
class Tile<bf16> {
   public:
    __device__ void clear() {
        for (Sums& s : sums_)
            s.clear();
    }
    // += A B^T, A [32, depth], B [64, depth] in rows of tile_stride; depth: a multiple of 16.
    __device__ void add_transposed(const bf16* a, const bf16* b, uint32_t depth) {
        constexpr uint32_t stride = tile_stride<bf16>;
        for (uint32_t k = 0; k < depth; k += 16) {
            const Piece left = load_left(a + row() * stride + k, stride);
#pragma unroll
            for (uint32_t f = 0; f < 2; ++f)
                sums_[f].add(left, load_right_by_column(b + (column() + 16 * f) * stride + k, stride));
        }
    }
    // += A B, A [32, 64], B [64, 64].
    __device__ void add(const bf16* a, const bf16* b) {
        constexpr uint32_t stride = tile_stride<bf16>;
#pragma unroll
        for (uint32_t k = 0; k < 64; k += 16) {
            const Piece left = load_left(a + row() * stride + k, stride);
#pragma unroll
            for (uint32_t f = 0; f < 2; ++f)
                sums_[f].add(left, load_right(b + k * stride + column() + 16 * f, stride));
        }
    }
    // To rows of sum_stride.
    __device__ void store(float* target) const {
#pragma unroll
        for (uint32_t f = 0; f < 2; ++f)
            sums_[f].store(target + row() * sum_stride + column() + 16 * f, sum_stride);
    }

   private:
    __device__ static uint32_t row() {
        return threadIdx.x / 64 * 16;
    }
    __device__ static uint32_t column() {
        return threadIdx.x / 32 % 2 * 32;
    }
    Sums sums_[2];
};

// A thread has rows 4 r .. 4 r + 3 and columns c, c + 16, c + 32, c + 48.
template <>
class Tile<float> {
   public:
    __device__ void clear() {
        for (auto& row : sums_)
            for (float& s : row)
                s = 0;
    }
    __device__ void add_transposed(const float* a, const float* b, uint32_t depth) {
        constexpr uint32_t stride = tile_stride<float>;
        for (uint32_t k = 0; k < depth; k += 4) {
            Vector<float> left[4];
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i)
                left[i] = load_vector(a + (row() + i) * stride + k);
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                const auto right = load_vector(b + (column() + 16 * j) * stride + k);
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
                    for (uint32_t l = 0; l < 4; ++l)
                        sums_[i][j] += left[i].values[l] * right.values[l];
            }
        }
    }
    __device__ void add(const float* a, const float* b) {
        constexpr uint32_t stride = tile_stride<float>;
#pragma unroll 4
        for (uint32_t k = 0; k < 64; ++k) {
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                const float right = b[k * stride + column() + 16 * j];
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i)
                    sums_[i][j] += a[(row() + i) * stride + k] * right;
            }
        }
    }
    __device__ void store(float* target) const {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j)
                target[(row() + i) * sum_stride + column() + 16 * j] = sums_[i][j];
    }

   private:
    __device__ static uint32_t row() {
        return threadIdx.x / 16 * 4;
    }
    __device__ static uint32_t column() {
        return threadIdx.x % 16;
    }
    float sums_[4][4];
};

// Starts copies of `rows` rows of 64 values each into rows of tile_stride. row_of(r): where row r begins, or
// null for zeros; values from `columns` on are zeros too (a multiple of a vector).
template <class T, class RowOf>
__device__ inline void copy_rows(T* target, uint32_t rows, uint32_t columns, const RowOf& row_of) {
    constexpr uint32_t width = vector_values<T>, vectors = 64 / width;
    for (uint32_t i = threadIdx.x; i < rows * vectors; i += tile_threads) {
        const uint32_t r = i / vectors, c = i % vectors * width;
        const T* from = row_of(r);
        T* to = target + r * tile_stride<T> + c;
        if (from != nullptr && c < columns) {
            __pipeline_memcpy_async(to, from + c, 16);
        } else {
            *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
        }
    }
}

}  // namespace espalier::cuda
