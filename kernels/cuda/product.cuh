// A block's product of rows that lie anywhere, bfloat16 on tensor cores: z = A B, A's rows gathered. Chunks of
// both factors pass through shared memory, `Stages` - 1 copies under way while one is multiplied. Products
// here are small and instructions are what they cost: where a thread's copies come from is found out once.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/mma.cuh"

namespace espalier::cuda {

// Starts a copy of 16 bytes to shared memory, of zeros where nothing is there.
__device__ inline void copy_async(bf16* to, const bf16* from, bool there) {
#if __CUDA_ARCH__ >= 800
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const uint32_t bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
                 : "memory");
#endif
}

// How the right factor is stored: its columns as rows, or by depth, what is summed over.
enum class Right { by_column, by_depth };

// M rows x N columns by WM x WN warps, each (M / WM) x (N / WN).
template <uint32_t M, uint32_t N, uint32_t WM, uint32_t WN, uint32_t Stages, Right right>
struct Product {
    static constexpr uint32_t rows = M, columns = N, chunk = 64;  // of the depth, at once
    static constexpr unsigned threads = WM * WN * 32;
    static constexpr uint32_t fragments_m = M / WM / 16, fragments_n = N / WN / 16;
    static constexpr uint32_t right_rows = right == Right::by_column ? N : chunk,
                              right_width = right == Right::by_column ? chunk : N;
    // 16 bytes more than a row, so that rows begin in other banks.
    static constexpr uint32_t left_stride = chunk + 8, right_stride = right_width + 8,
                              left_values = M * left_stride,
                              stage_values = left_values + right_rows * right_stride;
    static constexpr size_t bytes = Stages * stage_values * sizeof(bf16);
    // Rows that a block's threads copy at once, 16 bytes each, and how often they do for a chunk.
    static constexpr uint32_t left_step = threads / (chunk / 8), left_copies = M / left_step,
                              right_step = threads / (right_width / 8), right_copies = right_rows / right_step;
    static_assert(M % left_step == 0 && right_rows % right_step == 0 && Stages >= 2);

    Sums sums[fragments_m][fragments_n];

    // left(r): where row r of A begins, `depth` values, or null for zeros. right_row(i), by column: where
    // column i of B begins, as long; by depth: row i of B from this block's first column on, of which there are
    // `width`. Counts are multiples of 8.
    template <class Left, class RightRow>
    __device__ void run(bf16* memory, uint32_t depth, uint32_t width, const Left& left,
                        const RightRow& right_row) {
        const uint32_t m0 = first_row(), n0 = first_column(), chunks = (depth + chunk - 1) / chunk,
                       left_at = threadIdx.x % (chunk / 8) * 8, left_first = threadIdx.x / (chunk / 8),
                       right_at = threadIdx.x % (right_width / 8) * 8,
                       right_first = threadIdx.x / (right_width / 8);
        constexpr bool by_column = right == Right::by_column;
        const bf16 *from_left[left_copies], *from_right[by_column ? right_copies : 1];
#pragma unroll
        for (uint32_t i = 0; i < left_copies; ++i)
            from_left[i] = left(left_first + i * left_step);
        if constexpr (by_column) {
#pragma unroll
            for (uint32_t i = 0; i < right_copies; ++i)
                from_right[i] = right_row(right_first + i * right_step);
        }
        // Commits even where there is nothing left to copy: so many copies are under way, always.
        const auto fetch = [&](uint32_t c, uint32_t stage) {
            if (c < chunks) {
                bf16* a = memory + stage * stage_values + left_first * left_stride + left_at;
                bf16* b = memory + stage * stage_values + left_values + right_first * right_stride + right_at;
                const uint32_t at = c * chunk + left_at;
                const bool inside = at < depth;
#pragma unroll
                for (uint32_t i = 0; i < left_copies; ++i)
                    copy_async(a + i * left_step * left_stride, from_left[i] + at,
                               inside && from_left[i] != nullptr);
#pragma unroll
                for (uint32_t i = 0; i < right_copies; ++i) {
                    bf16* to = b + i * right_step * right_stride;
                    if constexpr (by_column) {
                        copy_async(to, from_right[i] + at, inside && from_right[i] != nullptr);
                    } else {
                        const uint32_t r = c * chunk + right_first + i * right_step;
                        const bf16* from = r < depth && right_at < width ? right_row(r) : nullptr;
                        copy_async(to, from + right_at, from != nullptr);
                    }
                }
            }
            __pipeline_commit();
        };
        for (auto& row : sums)
            for (Sums& s : row)
                s.clear();
#pragma unroll
        for (uint32_t s = 0; s + 1 < Stages; ++s)
            fetch(s, s);
        uint32_t stage = 0, next = Stages - 1;
        for (uint32_t c = 0; c < chunks; ++c) {
            __pipeline_wait_prior(Stages - 2);
            __syncthreads();
            fetch(c + Stages - 1, next);
            next = next + 1 == Stages ? 0 : next + 1;
            const bf16* a = memory + stage * stage_values + m0 * left_stride;
            const bf16* b = memory + stage * stage_values + left_values;
            stage = stage + 1 == Stages ? 0 : stage + 1;
#pragma unroll
            for (uint32_t k = 0; k < chunk; k += 16) {
                Piece piece[fragments_m];
#pragma unroll
                for (uint32_t i = 0; i < fragments_m; ++i)
                    piece[i] = load_left(a + 16 * i * left_stride + k, left_stride);
#pragma unroll
                for (uint32_t j = 0; j < fragments_n; ++j) {
                    const uint32_t n = n0 + 16 * j;
                    const Piece other = by_column
                                            ? load_right_by_column(b + n * right_stride + k, right_stride)
                                            : load_right(b + k * right_stride + n, right_stride);
#pragma unroll
                    for (uint32_t i = 0; i < fragments_m; ++i)
                        sums[i][j].add(piece[i], other);
                }
            }
        }
        __pipeline_wait_prior(0);
    }

    // The sums of each column and its neighbour, each pair once over the block: use(of_row(r), column, what
    // of_column(column) said, a, b). What is the same for a row or a column is found out once.
    template <class OfRow, class OfColumn, class Use>
    __device__ void each(const OfRow& of_row, const OfColumn& of_column, const Use& use) const {
        const uint32_t row = first_row() + threadIdx.x % 32 / 4,
                       column = first_column() + threadIdx.x % 4 * 2;
        decltype(of_column(column)) known[fragments_n][2];
#pragma unroll
        for (uint32_t j = 0; j < fragments_n; ++j)
#pragma unroll
            for (uint32_t h = 0; h < 2; ++h)
                known[j][h] = of_column(column + 16 * j + 8 * h);
#pragma unroll
        for (uint32_t i = 0; i < fragments_m; ++i) {
            const auto above = of_row(row + 16 * i), below = of_row(row + 16 * i + 8);
#pragma unroll
            for (uint32_t j = 0; j < fragments_n; ++j) {
#pragma unroll
                for (uint32_t h = 0; h < 2; ++h) {
                    const float(&v)[4] = sums[i][j].values[h];
                    const uint32_t c = column + 16 * j + 8 * h;
                    use(above, c, known[j][h], v[0], v[1]);
                    use(below, c, known[j][h], v[2], v[3]);
                }
            }
        }
    }

    // To rows of sum_stride in shared memory, where the stages were; the whole block waits for it.
    static constexpr uint32_t sum_stride = N + 4;
    static constexpr size_t sum_bytes = M * sum_stride * sizeof(float);
    __device__ void store(float* z) const {
        __syncthreads();
#pragma unroll
        for (uint32_t i = 0; i < fragments_m; ++i)
#pragma unroll
            for (uint32_t j = 0; j < fragments_n; ++j)
                sums[i][j].store(z + (first_row() + 16 * i) * sum_stride + first_column() + 16 * j,
                                 sum_stride);
        __syncthreads();
    }

   private:
    __device__ static uint32_t first_row() {
        return threadIdx.x / 32 / WN * (M / WM);
    }
    __device__ static uint32_t first_column() {
        return threadIdx.x / 32 % WN * (N / WN);
    }
};

}  // namespace espalier::cuda
