// Tensor cores on matrices in shared memory: 16 x 16 pieces of bfloat16, sums float32. By the instructions
// themselves (PTX ISA: ldmatrix, mma.m16n8k16), since the library's fragments are loaded value by value where
// the compiler does not see that a pointer is to shared memory. Rows begin at multiples of 16 bytes. Compute
// capability 8.0 and above; below, nothing happens, and nobody calls it.
#pragma once

#include "kernels/cuda/numbers.cuh"

namespace espalier::cuda {

struct Piece {
    uint32_t words[4];
};

// Lane l gives the place of row l % 8 of the (l / 8)-th of four 8 x 8 matrices.
template <bool transposed>
__device__ inline Piece load_four(const bf16* place) {
    Piece p{};
#if __CUDA_ARCH__ >= 800
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(place));
    if constexpr (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(p.words[0]), "=r"(p.words[1]), "=r"(p.words[2]), "=r"(p.words[3])
                     : "r"(address));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(p.words[0]), "=r"(p.words[1]), "=r"(p.words[2]), "=r"(p.words[3])
                     : "r"(address));
    }
#endif
    return p;
}

// The left factor, rows m, columns k, from a [m][k].
__device__ inline Piece load_left(const bf16* a, uint32_t stride) {
    const uint32_t lane = threadIdx.x % 32;
    return load_four<false>(a + lane % 16 * stride + lane / 16 * 8);
}
// The right factor, rows k, columns n, from a matrix stored [n][k].
__device__ inline Piece load_right_by_column(const bf16* b, uint32_t stride) {
    const uint32_t lane = threadIdx.x % 32;
    return load_four<false>(b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8);
}
// The same from one stored [k][n].
__device__ inline Piece load_right(const bf16* b, uint32_t stride) {
    const uint32_t lane = threadIdx.x % 32;
    return load_four<true>(b + lane % 16 * stride + lane / 16 * 8);
}

// Sums of 16 x 16: two halves of eight columns; a lane has two neighbours of rows lane / 4 and lane / 4 + 8.
struct Sums {
    float values[2][4];

    __device__ void clear() {
        for (auto& half : values)
            for (float& v : half)
                v = 0;
    }
    __device__ void add(const Piece& left, const Piece& right) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
            float(&v)[4] = values[h];
            asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                "{%8, %9}, {%0, %1, %2, %3};"
                : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
                : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]),
                  "r"(right.words[2 * h]), "r"(right.words[2 * h + 1]));
        }
#endif
    }
    __device__ void store(float* target, uint32_t stride) const {
        const uint32_t row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
            float* to = target + row * stride + 8 * h + column;
            *reinterpret_cast<float2*>(to) = make_float2(values[h][0], values[h][1]);
            *reinterpret_cast<float2*>(to + 8 * stride) = make_float2(values[h][2], values[h][3]);
        }
    }
};

// The same of 8-bit integers, sums int32 and exact: a 32-bit word is four of them, so that 16 words of a row
// are 32 of the depth, and pieces are loaded as those of bfloat16 are (PTX ISA: mma.m16n8k32).
struct IntSums {
    int32_t values[2][4];

    __device__ void clear() {
        for (auto& half : values)
            for (int32_t& v : half)
                v = 0;
    }
    __device__ void add(const Piece& left, const Piece& right) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h) {
            int32_t(&v)[4] = values[h];
            asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                "{%8, %9}, {%0, %1, %2, %3};"
                : "+r"(v[0]), "+r"(v[1]), "+r"(v[2]), "+r"(v[3])
                : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]),
                  "r"(right.words[2 * h]), "r"(right.words[2 * h + 1]));
        }
#endif
    }
    __device__ void store(float* target, uint32_t stride) const {
        Sums wide;
#pragma unroll
        for (uint32_t h = 0; h < 2; ++h)
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i)
                wide.values[h][i] = static_cast<float>(values[h][i]);
        wide.store(target, stride);
    }
};

}  // namespace espalier::cuda
