// Neuron forests: a token's output is the sum of its paths' rows.
#include <algorithm>

#include "kernels/cuda/walk.cuh"

namespace espalier::cuda {
namespace {

constexpr uint32_t steps_at_once = 512;

// The node at `level` of the path to `leaf` of the last level.
__device__ inline uint32_t node_on_path(uint32_t leaf, uint32_t levels, uint32_t level) {
    return ((leaf + (1u << (levels - 1))) >> (levels - 1 - level)) - 1;
}

// y = or += sum of a * row: a block a token and a stretch of columns, a thread a vector of columns.
template <class T, class Y>
__global__ void add_paths(const WalkArguments<T> w, const T* out, const float* bias, Y* y, bool accumulate) {
    constexpr uint32_t width = vector_values<T>;
    __shared__ float values[steps_at_once];
    __shared__ uint32_t rows[steps_at_once];
    const uint32_t token = blockIdx.x, column = (blockIdx.y * blockDim.x + threadIdx.x) * width,
                   steps = w.trees * w.levels;
    const bool works = column < w.hidden;
    float sum[width];
#pragma unroll
    for (uint32_t j = 0; j < width; ++j)
        sum[j] = works && bias != nullptr ? bias[column + j] : 0.0F;
    for (uint32_t first = 0; first < steps; first += steps_at_once) {
        const uint32_t count = min(steps_at_once, steps - first);
        for (uint32_t s = threadIdx.x; s < count; s += blockDim.x) {
            const uint32_t tree = (first + s) / w.levels, level = (first + s) % w.levels;
            const uint32_t leaf = w.leaf[size_t{token} * w.trees + tree];
            values[s] = w.activations[size_t{token} * steps + first + s];
            rows[s] = tree * w.nodes_per_tree() + node_on_path(leaf, w.levels, level);
        }
        __syncthreads();
        if (works) {
#pragma unroll 4
            for (uint32_t s = 0; s < count; ++s) {
                const auto row = load_vector(out + size_t{rows[s]} * w.hidden + column);
#pragma unroll
                for (uint32_t j = 0; j < width; ++j)
                    sum[j] += values[s] * row.values[j];
            }
        }
        __syncthreads();
    }
    if (!works) return;
    Y* target = y + size_t{token} * w.hidden + column;
#pragma unroll
    for (uint32_t j = 0; j < width; j += 4) {
        float4 value = make_float4(sum[j], sum[j + 1], sum[j + 2], sum[j + 3]);
        if (accumulate) {
            const float4 before = load_four_values(target + j);
            value =
                make_float4(before.x + value.x, before.y + value.y, before.z + value.z, before.w + value.w);
        }
        store_four_values(target + j, value);
    }
}

template <class T, class Y>
void add_rows(const NeuronForest& forest, const ForestCall& call) {
    const WalkArguments<T> w(forest.trees, call.x, call);
    constexpr size_t most_threads = 512;
    const size_t vectors = forest.trees.hidden / vector_values<T>;
    const size_t threads = std::min(most_threads, (vectors + 31) / 32 * 32);
    const dim3 grid(static_cast<unsigned>(call.tokens), blocks_for(vectors, threads));
    add_paths<T, Y><<<grid, static_cast<unsigned>(threads), 0, call.stream>>>(
        w, static_cast<const T*>(forest.out), forest.out_bias, static_cast<Y*>(call.y), call.accumulate);
    check_launch("add_paths");
}

}  // namespace

void run(const NeuronForest& forest, const ForestCall& call) {
    if (run_in_two_steps(forest, call)) return;
    walk(forest.trees, call.x, call);
    if (forest.trees.rows == TensorType::f32) {
        add_rows<float, float>(forest, call);
    } else if (forest.trees.rows == TensorType::s8) {
        run_byte_neurons(forest, call);
    } else if (call.narrow) {
        add_rows<bf16, bf16>(forest, call);
    } else {
        add_rows<bf16, float>(forest, call);
    }
}

}  // namespace espalier::cuda
