// In float32. Two passes over the keys: the first finds each row's largest score and the sum of exponentials,
// the second multiplies finished weights with the values. Nothing grows with the sequence, and no sum is
// scaled again.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/tile.cuh"

namespace espalier::cuda {
namespace {

struct Heads {
    const float* qkv;
    float* out;
    const uint32_t* offsets;
    uint32_t heads, kv_heads, dimension;
    float scale;
};

struct AttentionMemory {
    static constexpr uint32_t query_values = tile_rows * tile_stride<float>,
                              key_values = 64 * tile_stride<float>;
    static constexpr size_t bytes =
        (2 * query_values + 2 * key_values) * sizeof(float) + tile_rows * sum_stride * sizeof(float);
    float *queries, *weights, *keys, *values;
    float* sums;

    __device__ explicit AttentionMemory(uint4* base)
        : queries(reinterpret_cast<float*>(base)),
          weights(queries + query_values),
          keys(weights + query_values),
          values(keys + key_values),
          sums(reinterpret_cast<float*>(values + key_values)) {}
};

// The maximum and the sum over the four neighbouring threads of a row.
__device__ inline float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ inline float row_sum(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// A block: 32 queries of one head of one sequence. Four threads a row, each every fourth column.
__global__ void __launch_bounds__(tile_threads) attend_head(const Heads h) {
    extern __shared__ uint4 shared[];
    const AttentionMemory memory(shared);
    const uint32_t start = h.offsets[blockIdx.x], length = h.offsets[blockIdx.x + 1] - start,
                   first = blockIdx.y * tile_rows, head = blockIdx.z, row = threadIdx.x / 4,
                   quarter = threadIdx.x % 4;
    if (first >= length) return;
    const uint32_t stride = (h.heads + 2 * h.kv_heads) * h.dimension, depth = (h.dimension + 15) / 16 * 16,
                   kv = head / (h.heads / h.kv_heads);
    const float* queries = h.qkv + size_t{start} * stride + head * h.dimension;
    const float* keys = h.qkv + size_t{start} * stride + (h.heads + kv) * h.dimension;
    const float* values = keys + h.kv_heads * h.dimension;
    const auto fetch = [&](float* target, const float* from, uint32_t rows, uint32_t begin) {
        copy_rows(target, rows, h.dimension, [&](uint32_t r) {
            return begin + r < length ? from + size_t{begin + r} * stride : nullptr;
        });
        __pipeline_commit();
    };
    Tile<float> scores;
    const auto score = [&] {
        __pipeline_wait_prior(0);
        __syncthreads();
        scores.clear();
        scores.add_transposed(memory.queries, memory.keys, depth);
        scores.store(memory.sums);
        __syncthreads();
    };
    fetch(memory.queries, queries, tile_rows, first);
    float largest = -INFINITY, total = 0;
    for (uint32_t begin = 0; begin < length; begin += 64) {
        fetch(memory.keys, keys, 64, begin);
        score();
        const uint32_t count = min(64u, length - begin);
        float top = largest;
        for (uint32_t c = quarter; c < count; c += 4)
            top = fmaxf(top, memory.sums[row * sum_stride + c] * h.scale);
        top = row_max(top);
        float sum = 0;
        for (uint32_t c = quarter; c < count; c += 4)
            sum += expf(memory.sums[row * sum_stride + c] * h.scale - top);
        total = total * expf(largest - top) + row_sum(sum);
        largest = top;
        __syncthreads();
    }
    Tile<float> mix;
    mix.clear();
    for (uint32_t begin = 0; begin < length; begin += 64) {
        if (length > 64) fetch(memory.keys, keys, 64, begin);  // else they are there
        fetch(memory.values, values, 64, begin);
        score();
        for (uint32_t c = quarter; c < 64; c += 4) {
            const float weight = begin + c < length
                                     ? expf(memory.sums[row * sum_stride + c] * h.scale - largest) / total
                                     : 0.0F;
            memory.weights[row * tile_stride<float> + c] = weight;
        }
        __syncthreads();
        mix.add(memory.weights, memory.values);
        __syncthreads();
    }
    mix.store(memory.sums);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < tile_rows * h.dimension; i += tile_threads) {
        const uint32_t r = i / h.dimension, c = i % h.dimension;
        if (first + r < length)
            h.out[size_t{start + first + r} * h.heads * h.dimension + head * h.dimension + c] =
                memory.sums[r * sum_stride + c];
    }
}

void attend_float(const AttentionCall& call) {
    const Heads heads{static_cast<const float*>(call.qkv),
                      static_cast<float*>(call.out),
                      call.offsets,
                      static_cast<uint32_t>(call.heads),
                      static_cast<uint32_t>(call.kv_heads),
                      static_cast<uint32_t>(call.head_dimension),
                      call.scale};
    allow_block_memory(attend_head, AttentionMemory::bytes);
    const dim3 grid(static_cast<unsigned>(call.sequences), blocks_for(call.longest, tile_rows), heads.heads);
    attend_head<<<grid, tile_threads, AttentionMemory::bytes, call.stream>>>(heads);
    check_launch("attend_head");
}

}  // namespace

void attend(const AttentionCall& call) {
    if (call.type == TensorType::f32) {
        attend_float(call);
    } else if (call.type == TensorType::s8) {
        attend_bytes(call);
    } else {
        attend_bf16(call);
    }
}

}  // namespace espalier::cuda
