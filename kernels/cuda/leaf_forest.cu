// Leaf forests in float32: tokens sorted by leaf, a block multiplies up to 32 tokens of one leaf with its
// neurons.
#include <algorithm>

#include "kernels/cuda/forest.h"
#include "kernels/cuda/tile.cuh"

namespace espalier::cuda {
namespace {

// One tree's leaves.
struct Leaves {
    const float* x;
    const float *up, *down;       // [leaves, width, hidden]
    const float *up_bias, *bias;  // [leaves, width] or null, [leaves, hidden] or null
    const LeafTile* tiles;
    const uint32_t* order;
    float* y;
    uint32_t hidden, width;
    Activation activation;
    bool accumulate;
};

// Shared memory of a block: stages of x and up rows, in their place of down rows; activations; sums. Copies
// run ahead by as many stages as keep a block's memory under half a processor's.
struct LeafMemory {
    static constexpr uint32_t stages = 2, x_values = tile_rows * tile_stride<float>,
                              w_values = 64 * tile_stride<float>, stage_values = x_values + w_values;
    static constexpr size_t bytes =
        (stages * stage_values + x_values) * sizeof(float) + tile_rows * sum_stride * sizeof(float);
    float *first, *activations;
    float* sums;

    __device__ explicit LeafMemory(uint4* base)
        : first(reinterpret_cast<float*>(base)),
          activations(first + stages * stage_values),
          sums(reinterpret_cast<float*>(activations + x_values)) {}
    __device__ float* x(uint32_t s) const { return first + s % stages * stage_values; }
    __device__ float* weights(uint32_t s) const { return x(s) + x_values; }
};

__global__ void __launch_bounds__(tile_threads) run_leaves(const Leaves f) {
    extern __shared__ uint4 shared[];
    __shared__ uint32_t tokens[tile_rows];
    const LeafMemory memory(shared);
    const LeafTile tile = f.tiles[blockIdx.x];
    if (tile.count == 0) return;
    if (threadIdx.x < tile_rows)
        tokens[threadIdx.x] = threadIdx.x < tile.count ? f.order[tile.first + threadIdx.x] : 0;
    __syncthreads();
    constexpr uint32_t ahead = LeafMemory::stages - 1;
    const uint32_t stretches = (f.hidden + 63) / 64;
    const size_t first_neuron = size_t{tile.leaf} * f.width;
    uint32_t neurons = 0;
    do {  // 64 neurons at a time; without any, the bias alone
        const uint32_t count = min(64u, f.width - neurons);
        // activations = act(x up^T + bias)
        // Commits even where there is nothing left to copy: so many copies are under way, always.
        const auto fetch = [&](uint32_t s) {
            const uint32_t column = s * 64, columns = min(64u, f.hidden - column);
            if (s < stretches) {
                copy_rows(memory.x(s), tile_rows, columns, [&](uint32_t r) {
                    return r < tile.count ? f.x + size_t{tokens[r]} * f.hidden + column : nullptr;
                });
                copy_rows(memory.weights(s), 64, columns, [&](uint32_t r) {
                    return r < count ? f.up + (first_neuron + neurons + r) * f.hidden + column : nullptr;
                });
            }
            __pipeline_commit();
        };
        Tile<float> sums;
        sums.clear();
        for (uint32_t s = 0; s < ahead; ++s)
            fetch(s);
        for (uint32_t s = 0; s < stretches; ++s) {
            __pipeline_wait_prior(ahead - 1);
            __syncthreads();
            fetch(s + ahead);
            sums.add_transposed(memory.x(s), memory.weights(s), 64);
        }
        sums.store(memory.sums);
        __syncthreads();
        // The first down rows come while the activations are made.
        const auto fetch_down = [&](uint32_t s) {
            const uint32_t column = s * 64;
            if (s < stretches)
                copy_rows(memory.weights(s), 64, min(64u, f.hidden - column), [&](uint32_t r) {
                    return r < count ? f.down + (first_neuron + neurons + r) * f.hidden + column : nullptr;
                });
            __pipeline_commit();
        };
        for (uint32_t s = 0; s < ahead; ++s)
            fetch_down(s);
        for (uint32_t i = threadIdx.x; i < tile_rows * 64; i += tile_threads) {
            const uint32_t r = i / 64, n = i % 64;
            float value = memory.sums[r * sum_stride + n];
            if (f.up_bias != nullptr && n < count) value += f.up_bias[first_neuron + neurons + n];
            // Beyond the leaf's width down rows are zeros, and so must this be.
            memory.activations[r * tile_stride<float> + n] =
                n < count ? activated(f.activation, value) : 0.0F;
        }
        // y (+)= activations down
        for (uint32_t s = 0; s < stretches; ++s) {
            __pipeline_wait_prior(ahead - 1);
            __syncthreads();
            fetch_down(s + ahead);
            sums.clear();
            sums.add(memory.activations, memory.weights(s));
            sums.store(memory.sums);
            __syncthreads();
            const bool adds = f.accumulate || neurons > 0;
            for (uint32_t i = threadIdx.x; i < tile.count * 16; i += tile_threads) {
                const uint32_t r = i / 16, c = i % 16 * 4, column = s * 64 + c;
                if (column >= f.hidden) continue;
                float4 value = *reinterpret_cast<const float4*>(memory.sums + r * sum_stride + c);
                const auto add = [&](const float4& other) {
                    value.x += other.x, value.y += other.y, value.z += other.z, value.w += other.w;
                };
                auto* target = reinterpret_cast<float4*>(f.y + size_t{tokens[r]} * f.hidden + column);
                if (adds) add(*target);
                if (f.bias != nullptr && neurons == 0)
                    add(*reinterpret_cast<const float4*>(f.bias + size_t{tile.leaf} * f.hidden + column));
                *target = value;
            }
        }
        neurons += 64;
    } while (neurons < f.width);
}

void run_float_leaves(const LeafForest& forest, const ForestCall& call) {
    const Trees& trees = forest.trees;
    const size_t leaves = trees.leaves(), hidden = trees.hidden;
    allow_block_memory(run_leaves, LeafMemory::bytes);
    for (size_t k = 0; k < trees.trees; ++k) {
        const size_t neurons = k * leaves * forest.leaf_width;
        Leaves f;
        f.tiles = group_by_leaf(trees, k, tile_tokens, call);
        f.x = static_cast<const float*>(call.x);
        f.up = static_cast<const float*>(forest.up) + neurons * hidden;
        f.down = static_cast<const float*>(forest.down) + neurons * hidden;
        f.up_bias = forest.up_bias != nullptr ? forest.up_bias + neurons : nullptr;
        f.bias = forest.bias != nullptr ? forest.bias + k * leaves * hidden : nullptr;
        f.order = call.scratch.order;
        f.y = static_cast<float*>(call.y);
        f.hidden = static_cast<uint32_t>(hidden);
        f.width = static_cast<uint32_t>(forest.leaf_width);
        f.activation = trees.activation;
        f.accumulate = call.accumulate || k > 0;
        run_leaves<<<static_cast<unsigned>(most_leaf_tiles(trees, tile_tokens, call.tokens)), tile_threads,
                     LeafMemory::bytes, call.stream>>>(f);
        check_launch("run_leaves");
    }
}

}  // namespace

void run(const LeafForest& forest, const ForestCall& call) {
    walk(forest.trees, call.walk_x, call);
    if (forest.rows == TensorType::f32) {
        run_float_leaves(forest, call);
    } else if (forest.rows == TensorType::s8) {
        run_byte_leaves(forest, call);
    } else {
        run_bf16_leaves(forest, call);
    }
}

}  // namespace espalier::cuda
