// A block's product of rows that lie anywhere, bfloat16 on tensor cores: z = A B, A's rows gathered. Chunks
// of both factors pass through shared memory, `Stages` - 1 copies under way while one is multiplied. Products
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

// M rows x N columns by WM x WN warps, each (M / WM) x (N / WN). In shared memory rows are whole lines of 128
// bytes, of which row r has its 16-byte pieces at place ^ (r % 8): a line is then written at once, and pieces
// of eight rows one above the other lie in different banks. With IntSums values are pairs of 8-bit integers.
template <uint32_t M, uint32_t N, uint32_t WM, uint32_t WN, uint32_t Stages, Right stored, class Sum = Sums>
struct Product {
    static constexpr uint32_t rows = M, columns = N, chunk = 64;  // of the depth, at once
    static constexpr unsigned threads = WM * WN * 32;
    static constexpr uint32_t fragments_m = M / WM / 16, fragments_n = N / WN / 16;
    static constexpr bool by_column = stored == Right::by_column;
    static constexpr uint32_t right_rows = by_column ? N : chunk, right_width = by_column ? chunk : N,
                              left_values = M * chunk, stage_values = left_values + right_rows * right_width;
    // Rows of sums in shared memory, where the stages were.
    static constexpr uint32_t sum_stride = N + 8;
    static constexpr size_t stage_bytes = Stages * stage_values * sizeof(bf16),
                            sum_bytes = M * sum_stride * sizeof(float),
                            bytes = stage_bytes > sum_bytes ? stage_bytes : sum_bytes;
    // Rows that a block's threads copy at once, 16 bytes each, and how often they do for a chunk.
    static constexpr uint32_t left_pieces = chunk / 8, left_step = threads / left_pieces,
                              left_copies = M / left_step, right_pieces = right_width / 8,
                              right_step = threads / right_pieces, right_copies = right_rows / right_step;
    static_assert(M % left_step == 0 && right_rows % right_step == 0 && left_step % 8 == 0 &&
                  right_step % 8 == 0 && Stages >= 1);

    Sum sums[fragments_m][fragments_n];

    // left(r): where row r of A begins, `depth` values, or null for zeros. right_row(i), by column: where
    // column i of B begins, as long; by depth: row i of B from this block's first column on, of which there
    // are `width`. Counts are multiples of 8. memory: 128-byte aligned.
    template <class Left, class RightRow>
    __device__ void run(bf16* memory, uint32_t depth, uint32_t width, const Left& left,
                        const RightRow& right_row) {
        clear();
        add(memory, depth, width, left, right_row);
    }
    __device__ void clear() {
        for (auto& row : sums)
            for (Sum& s : row)
                s.clear();
    }
    // The same product added to the sums.
    template <class Left, class RightRow>
    __device__ void add(bf16* memory, uint32_t depth, uint32_t width, const Left& left,
                        const RightRow& right_row) {
        const uint32_t chunks = (depth + chunk - 1) / chunk, left_piece = threadIdx.x % left_pieces,
                       left_first = threadIdx.x / left_pieces, right_piece = threadIdx.x % right_pieces,
                       right_first = threadIdx.x / right_pieces;
        const bf16 *from_left[left_copies], *from_right[by_column ? right_copies : 1];
#pragma unroll
        for (uint32_t i = 0; i < left_copies; ++i)
            from_left[i] = left(left_first + i * left_step);
        if constexpr (by_column) {
#pragma unroll
            for (uint32_t i = 0; i < right_copies; ++i)
                from_right[i] = right_row(right_first + i * right_step);
        }
        bf16* const left_to = memory + left_first * chunk + (left_piece ^ left_first % 8) * 8;
        bf16* const right_to =
            memory + left_values + right_first * right_width + (right_piece ^ right_first % 8) * 8;
        // Blocks that read the same columns begin at different chunks, or all would ask for the same few
        // lines of the second-level cache at once.
        const uint32_t turn = by_column && chunks > 0 ? blockIdx.x % chunks : 0;
        // Commits even where there is nothing left to copy: so many copies are under way, always.
        const auto fetch = [&](uint32_t step, uint32_t stage) {
            if (step < chunks) {
                const uint32_t c = step + turn < chunks ? step + turn : step + turn - chunks;
                const uint32_t at = c * chunk + left_piece * 8;
                const bool inside = at < depth;
                // The right ones first: where left rows begin may still be under way.
#pragma unroll
                for (uint32_t i = 0; i < right_copies; ++i) {
                    bf16* to = right_to + stage * stage_values + i * right_step * right_width;
                    if constexpr (by_column) {
                        copy_async(to, from_right[i] + at, inside && from_right[i] != nullptr);
                    } else {
                        const uint32_t r = c * chunk + right_first + i * right_step;
                        const bf16* from = r < depth && right_piece * 8 < width ? right_row(r) : nullptr;
                        copy_async(to, from + right_piece * 8, from != nullptr);
                    }
                }
#pragma unroll
                for (uint32_t i = 0; i < left_copies; ++i)
                    copy_async(left_to + stage * stage_values + i * left_step * chunk, from_left[i] + at,
                               inside && from_left[i] != nullptr);
            }
            __pipeline_commit();
        };
        constexpr uint32_t ahead = Stages > 1 ? Stages - 1 : 1;  // a single stage serves one chunk alone
#pragma unroll
        for (uint32_t s = 0; s < ahead; ++s)
            fetch(s, s);
        uint32_t stage = 0, next = ahead;
        for (uint32_t c = 0; c < chunks; ++c) {
            __pipeline_wait_prior(ahead - 1);
            __syncthreads();
            if constexpr (Stages > 1) fetch(c + ahead, next);
            next = next + 1 == Stages ? 0 : next + 1;
            multiply<chunk>(memory + stage * stage_values, memory + stage * stage_values + left_values);
            stage = stage + 1 == Stages ? 0 : stage + 1;
        }
        __pipeline_wait_prior(0);
        __syncthreads();  // the stages may be written again
    }

    // One product of what lies in shared memory as add() lays it out: the left rows, and the right factor up
    // to `depth`.
    template <uint32_t depth>
    __device__ void multiply(const bf16* left, const bf16* right) {
        const bf16* a = left + first_row() * chunk;
        const bf16* b = right + (by_column ? first_column() * chunk : 0);
        // The next pieces come while these are multiplied.
        Pieces pieces[2];
        load(pieces[0], a, b, 0);
#pragma unroll
        for (uint32_t k = 0; k < depth; k += 16) {
            const Pieces& now = pieces[k / 16 % 2];
            if (k + 16 < depth) load(pieces[(k / 16 + 1) % 2], a, b, k + 16);
#pragma unroll
            for (uint32_t j = 0; j < fragments_n; ++j)
#pragma unroll
                for (uint32_t i = 0; i < fragments_m; ++i)
                    sums[i][j].add(now.left[i], now.right[j]);
        }
    }

    // To rows of sum_stride; the block waits for it.
    __device__ void store(float* z) const {
#pragma unroll
        for (uint32_t i = 0; i < fragments_m; ++i)
#pragma unroll
            for (uint32_t j = 0; j < fragments_n; ++j)
                sums[i][j].store(z + (first_row() + 16 * i) * sum_stride + first_column() + 16 * j,
                                 sum_stride);
        __syncthreads();
    }

    // From there, whole lines at once, to row(r), float32 or bfloat16, or nowhere if null: plus more(column),
    // four values, plus, if `accumulate`, what is there. width: this block's columns; a multiple of 4.
    template <class Row, class More>
    __device__ static void write(const float* z, uint32_t width, bool accumulate, const Row& row,
                                 const More& more) {
        constexpr uint32_t vectors = N / 4, step = threads / vectors;
        static_assert(threads % vectors == 0);
        const uint32_t column = threadIdx.x % vectors * 4;
        if (column >= width) return;
        const float4 other = more(column);
#pragma unroll 4
        for (uint32_t r = threadIdx.x / vectors; r < M; r += step) {
            auto* to = row(r);
            if (to == nullptr) continue;
            float4 value = *reinterpret_cast<const float4*>(z + r * sum_stride + column);
            value.x += other.x, value.y += other.y, value.z += other.z, value.w += other.w;
            if (accumulate) {
                const float4 before = load_four_values(to + column);
                value.x += before.x, value.y += before.y, value.z += before.z, value.w += before.w;
            }
            store_four_values(to + column, value);
        }
    }

    // In place of store() and write(): made(column) gives what makes a result of each sum and is asked once,
    // results are rounded to bfloat16 and written to row(r). width: a multiple of 8.
    template <class Row, class More, class Make>
    __device__ void write_rounded(bf16* z, uint32_t width, const Row& row, const More& more,
                                  const Make& make) const {
        constexpr uint32_t stride = N + 8, pieces = N / 8;
        const uint32_t first = first_row() + threadIdx.x % 32 / 4,
                       column = first_column() + threadIdx.x % 4 * 2;
#pragma unroll
        for (uint32_t j = 0; j < fragments_n; ++j) {
#pragma unroll
            for (uint32_t h = 0; h < 2; ++h) {
                const uint32_t c = column + 16 * j + 8 * h;
                const float2 other = more(c);
#pragma unroll
                for (uint32_t i = 0; i < fragments_m; ++i) {
                    const float(&v)[4] = sums[i][j].values[h];
                    bf16* to = z + (first + 16 * i) * stride + c;
                    *reinterpret_cast<__nv_bfloat162*>(to) =
                        __floats2bfloat162_rn(make(v[0] + other.x), make(v[1] + other.y));
                    *reinterpret_cast<__nv_bfloat162*>(to + 8 * stride) =
                        __floats2bfloat162_rn(make(v[2] + other.x), make(v[3] + other.y));
                }
            }
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < M * pieces; i += threads) {
            const uint32_t r = i / pieces, c = i % pieces * 8;
            bf16* to = row(r);
            if (to != nullptr && c < width)
                *reinterpret_cast<uint4*>(to + c) = *reinterpret_cast<const uint4*>(z + r * stride + c);
        }
    }

   private:
    __device__ static uint32_t first_row() {
        return threadIdx.x / 32 / WN * (M / WM);
    }
    __device__ static uint32_t first_column() {
        return threadIdx.x / 32 % WN * (N / WN);
    }

    struct Pieces {
        Piece left[fragments_m], right[fragments_n];
    };
    // What 16 of the depth need, from k on. A lane's rows are lane % 8 above multiples of 8.
    __device__ static void load(Pieces& p, const bf16* a, const bf16* b, uint32_t k) {
        const uint32_t lane = threadIdx.x % 32, turn = lane % 8;
        const bf16* left = a + lane % 16 * chunk + ((k / 8 + lane / 16) ^ turn) * 8;
#pragma unroll
        for (uint32_t i = 0; i < fragments_m; ++i)
            p.left[i] = load_four<false>(left + 16 * i * chunk);
#pragma unroll
        for (uint32_t j = 0; j < fragments_n; ++j) {
            if constexpr (by_column) {
                const uint32_t row = lane / 16 * 8 + turn;
                p.right[j] =
                    load_four<false>(b + (16 * j + row) * chunk + ((k / 8 + lane / 8 % 2) ^ turn) * 8);
            } else {
                const uint32_t piece = (first_column() + 16 * j) / 8 + lane / 16;
                p.right[j] = load_four<true>(b + (k + lane % 16) * right_width + (piece ^ turn) * 8);
            }
        }
    }
};

}  // namespace espalier::cuda
