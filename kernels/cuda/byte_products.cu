#include "kernels/cuda/byte_products.h"

#include "kernels/cuda/product.cuh"
#include "kernels/quantize/rotate.h"

namespace espalier::cuda {
namespace {

constexpr unsigned round_threads = 128, round_warps = round_threads / 32;

struct Turn {
    uint32_t span, blocks;
    Turn(bool rotated, size_t columns)
        : span(static_cast<uint32_t>(rotated ? rotation_span(columns) : 1)),
          blocks(static_cast<uint32_t>(rotation_blocks(columns))) {}
};

// Hadamard matrices of `span` over numbers 16 apart, then the reflection of blocks of 16 * span: in place.
__device__ void turn(float* row, uint32_t count, const Turn& by) {
    const uint32_t span = by.span, blocks = by.blocks;
    if (span == 1) return;
    constexpr uint32_t step = rotation_step;
    for (uint32_t half = 1; half < span; half *= 2) {
        for (uint32_t i = threadIdx.x; i < count / 2; i += round_threads) {
            const uint32_t pair = i / step, lane = i % step, low = pair / half * 2 * half + pair % half;
            float &a = row[low * step + lane], &b = row[(low + half) * step + lane];
            const float sum = a + b;
            b = a - b;
            a = sum;
        }
        __syncthreads();
    }
    const float scale = rsqrtf(static_cast<float>(span));
    const uint32_t block = step * span;
    for (uint32_t i = threadIdx.x; i < (blocks > 1 ? block : count); i += round_threads) {
        if (blocks == 1) {
            row[i] *= scale;
            continue;
        }
        float sum = 0;
        for (uint32_t b = 0; b < blocks; ++b)
            sum += row[b * block + i];
        const float less = sum * (2.0F / static_cast<float>(blocks));
        for (uint32_t b = 0; b < blocks; ++b)
            row[b * block + i] = (row[b * block + i] - less) * scale;
    }
    __syncthreads();
}

// A block a row.
__global__ void __launch_bounds__(round_threads)
    round_row(const RoundedRows c, const Turn own, const Turn shared) {
    extern __shared__ float row[];
    __shared__ float tops[round_warps];
    const auto of_leaf = static_cast<uint32_t>(c.columns),
               columns = of_leaf + static_cast<uint32_t>(c.shared_columns);
    const size_t start = size_t{blockIdx.x} * columns;
    for (uint32_t i = threadIdx.x; i < columns; i += round_threads)
        row[i] = c.narrow ? widened(static_cast<const bf16*>(c.x)[start + i])
                          : static_cast<const float*>(c.x)[start + i];
    __syncthreads();
    turn(row, of_leaf, own);
    turn(row + of_leaf, columns - of_leaf, shared);
    const float* factors =
        c.factors != nullptr ? c.factors + c.leaf[c.order[blockIdx.x] * c.stride] * size_t{of_leaf} : nullptr;
    float top = 0;  // infinity where a value is not finite
    for (uint32_t i = threadIdx.x; i < columns; i += round_threads) {
        if (factors != nullptr) row[i] *= i < of_leaf ? factors[i] : c.shared_factors[i - of_leaf];
        top = fmaxf(top, isfinite(row[i]) ? fabsf(row[i]) : INFINITY);
    }
    top = warp_max(top);
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    __syncthreads();
    for (unsigned w = 0; w < round_warps; ++w)
        top = fmaxf(top, tops[w]);
    const bool finite = isfinite(top);
    const float steps = finite && top > 1e-35F ? 127.0F / top : 0.0F;
    const uint32_t padded = (columns + 15) / 16 * 16;
    for (uint32_t i = threadIdx.x * 4; i < padded; i += round_threads * 4) {
        char4 four = make_char4(0, 0, 0, 0);
        auto* bytes = reinterpret_cast<int8_t*>(&four);
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
            if (i + j < columns && finite) bytes[j] = static_cast<int8_t>(rintf(row[i + j] * steps));
        }
        *reinterpret_cast<char4*>(c.y + size_t{blockIdx.x} * padded + i) = four;
    }
    if (threadIdx.x == 0) c.scale[blockIdx.x] = finite ? top / 127.0F : NAN;
}

template <class P>
__global__ void __launch_bounds__(P::threads) multiply_bytes(const ByteProduct c) {
    extern __shared__ __align__(128) uint4 memory[];
    LeafTile tile{0, blockIdx.x * P::rows, 0};
    tile.count = min(P::rows, c.rows - tile.first);
    if (c.tiles != nullptr) tile = c.tiles[blockIdx.x];
    if (tile.count == 0) return;
    const uint32_t columns = c.columns + c.shared_columns, depth = c.depth + c.shared_depth,
                   first = blockIdx.y * P::columns, here = min(P::columns, columns - first);
    const auto ordered = [&](uint32_t r) { return c.order[tile.first + r]; };
    const size_t leaf_columns = size_t{tile.leaf} * c.columns;
    P product;
    product.clear();
    // Pairs of bytes stand for bfloat16 values.
    const auto pairs = [](const int8_t* bytes) { return reinterpret_cast<const bf16*>(bytes); };
#pragma unroll 1
    for (uint32_t source = 0; source < (c.shared_depth > 0 ? 2 : 1); ++source) {
        const bool of_leaf = source == 0;
        const uint32_t at = of_leaf ? 0 : c.depth;
        product.add(
            reinterpret_cast<bf16*>(memory), (of_leaf ? c.depth : c.shared_depth) / 2, P::columns,
            [&](uint32_t r) -> const bf16* {
                if (r >= tile.count) return nullptr;
                return pairs(c.a + size_t{c.gathers ? ordered(r) : tile.first + r} * depth + at);
            },
            [&](uint32_t n) -> const bf16* {
                if (n >= here) return nullptr;
                if (!of_leaf) return pairs(c.shared_b + size_t{first + n} * c.shared_depth);
                return pairs(first + n < c.columns ? c.b + (leaf_columns + first + n) * c.depth
                                                   : c.shared_b + size_t{first + n - c.columns} * c.depth);
            });
    }
    auto* z = reinterpret_cast<float*>(memory);
    product.store(z);
    constexpr uint32_t vectors = P::columns / 4, step = P::threads / vectors;
    const uint32_t column = threadIdx.x % vectors * 4;
    if (column >= here) return;
    const bool is_shared = first + column >= c.columns;
    const size_t from = is_shared ? first + column - c.columns : leaf_columns + first + column;
    const float *b_scale = is_shared ? c.shared_b_scale : c.b_scale,
                *bias = is_shared ? c.shared_bias : c.bias;
    float scales[4], biases[4];
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
        scales[j] = b_scale != nullptr ? b_scale[from + j] : 1.0F;
        biases[j] = bias != nullptr ? bias[from + j] : 0.0F;
    }
    for (uint32_t r = threadIdx.x / vectors; r < tile.count; r += step) {
        const float scale = c.a_scale != nullptr ? c.a_scale[c.gathers ? ordered(r) : tile.first + r] : 1.0F;
        float values[4];
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j)
            values[j] =
                activated(c.activation, z[r * P::sum_stride + column + j] * (scale * scales[j]) + biases[j]);
        const size_t at = size_t{c.scatters ? ordered(r) : tile.first + r} * columns + first + column;
        if (c.narrow) {
            auto* to = reinterpret_cast<__nv_bfloat162*>(static_cast<bf16*>(c.y) + at);
            to[0] = __floats2bfloat162_rn(values[0], values[1]);
            to[1] = __floats2bfloat162_rn(values[2], values[3]);
            continue;
        }
        auto* to = reinterpret_cast<float4*>(static_cast<float*>(c.y) + at);
        float4 sum = make_float4(values[0], values[1], values[2], values[3]);
        if (c.accumulate) sum.x += to->x, sum.y += to->y, sum.z += to->z, sum.w += to->w;
        *to = sum;
    }
}

template <class P>
void launch(const ByteProduct& c, cudaStream_t stream) {
    allow_block_memory(multiply_bytes<P>, P::bytes);
    const unsigned tiles =
        c.tiles != nullptr ? static_cast<unsigned>(c.most_tiles) : blocks_for(c.rows, P::rows);
    const dim3 grid(tiles, blocks_for(c.columns + c.shared_columns, P::columns));
    multiply_bytes<P><<<grid, P::threads, P::bytes, stream>>>(c);
    check_launch("multiply_bytes");
}

using Large = Product<128, 128, 2, 4, 4, Right::by_column, IntSums>;
using Middle = Product<64, 64, 2, 2, 4, Right::by_column, IntSums>;
using Small = Product<fewest_tile_tokens, 64, 1, 4, 4, Right::by_column, IntSums>;

}  // namespace

void round_rows(const RoundedRows& call, cudaStream_t stream) {
    if (call.rows == 0) return;
    const size_t bytes = (call.columns + call.shared_columns) * sizeof(float);
    allow_block_memory(round_row, bytes);
    round_row<<<static_cast<unsigned>(call.rows), round_threads, bytes, stream>>>(
        call, Turn(call.rotated, call.columns), Turn(call.shared_rotated, call.shared_columns));
    check_launch("round_row");
}

void multiply(const ByteProduct& product, cudaStream_t stream) {
    constexpr uint32_t enough = 132;  // blocks that fill a large GPU
    if (product.tiles != nullptr ? product.few : product.rows <= 32) {
        launch<Small>(product, stream);
    } else if (product.tiles != nullptr ||
               size_t{product.rows} * product.columns < enough * Large::rows * Large::columns / 2) {
        launch<Middle>(product, stream);
    } else {
        launch<Large>(product, stream);
    }
}

}  // namespace espalier::cuda
