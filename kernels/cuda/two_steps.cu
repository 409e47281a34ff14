// Two steps in float32: the upper levels' rows lie in the shared memory of every processor while all tokens
// pass; then a block takes a subtree's tokens: its input rows into shared memory, the rest of the walk, then
// its output rows and those of the path above it, which all its tokens share, and the sums. A row is read
// from device memory once a block, not once a token.
#include <algorithm>

#include "kernels/cuda/steps.cuh"

namespace espalier::cuda {
namespace {

constexpr unsigned block_threads = 1024, warps = block_threads / 32;
constexpr uint32_t width = vector_values<float>;

template <int vectors, bool exact>
using Row = KeptRow<float, vectors, exact>;

__device__ void copy_row(float* target, const float* row, uint32_t count, uint32_t thread, uint32_t threads) {
    for (uint32_t i = thread * width; i < count; i += threads * width)
        *reinterpret_cast<uint4*>(target + i) = *reinterpret_cast<const uint4*>(row + i);
}

// The first `upper` levels; leaves the margin so far in w.margin.
template <int vectors, bool exact>
__global__ void __launch_bounds__(block_threads)
    walk_upper(const WalkArguments<float> w, uint32_t upper, const Subtrees subtrees) {
    extern __shared__ float rows[];
    const uint32_t hidden = Row<vectors, exact>::hidden(w), nodes = (1u << upper) - 1,
                   warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    copy_row(rows, w.nodes, nodes * hidden, threadIdx.x, block_threads);
    __syncthreads();
    Row<vectors, exact> x;
    for (uint32_t token = blockIdx.x * warps + warp; token < w.tokens; token += gridDim.x * warps) {
        x.load(w.x + size_t{token} * hidden, hidden);
        Walker walker;
        float kept = 0;  // lane l keeps the product of level l
        for (uint32_t level = 0; level < upper; ++level) {
            const float z = x.product(rows + walker.node * hidden, hidden) + w.offset_of(0, walker.node);
            if (lane == level) kept = z;
            walker.step(w, level, z);
        }
        if (lane < upper) w.activations[size_t{token} * w.levels + lane] = neuron_value(w, kept);
        if (lane == 0) {
            w.margin[token] = walker.margin;
            subtrees.add(walker.node - nodes, token);
        }
    }
}

// Block (s, p): part p of the tokens of subtree s.
template <int vectors, bool exact>
__global__ void __launch_bounds__(block_threads)
    walk_lower(const WalkArguments<float> w, uint32_t upper, const float* out, const float* bias,
               const Subtrees subtrees, float* y, bool accumulate) {
    extern __shared__ float rows[];
    const uint32_t hidden = Row<vectors, exact>::hidden(w), lower = w.levels - upper, warp = threadIdx.x / 32,
                   lane = threadIdx.x % 32, inner = (1u << lower) - 1, root = (1u << upper) - 1 + blockIdx.x;
    const uint32_t begin = subtrees.first(blockIdx.x, blockIdx.y, gridDim.y),
                   end = subtrees.first(blockIdx.x, blockIdx.y + 1, gridDim.y);
    if (begin == end) return;
    const uint32_t* tokens = subtrees.of(blockIdx.x);
    for (uint32_t i = warp; i < inner; i += warps)
        copy_row(rows + i * hidden, w.nodes + size_t{node_under(root, i)} * hidden, hidden, lane, 32);
    __syncthreads();
    Row<vectors, exact> x;
    for (uint32_t at = begin + warp; at < end; at += warps) {
        const uint32_t token = tokens[at];
        x.load(w.x + size_t{token} * hidden, hidden);
        Walker walker;
        walker.margin = w.margin[token];
        walker.node = root;
        float kept = 0;
        uint32_t local = 0;
        for (uint32_t under = 0; under < lower; ++under) {
            const float z = x.product(rows + local * hidden, hidden) + w.offset_of(0, walker.node);
            if (lane == under) kept = z;
            walker.step(w, upper + under, z);
            local = 2 * local + (goes_right(z, w.zero_goes_right) ? 2 : 1);
        }
        if (lane < lower) w.activations[size_t{token} * w.levels + upper + lane] = neuron_value(w, kept);
        if (lane == 0) {
            w.leaf[token] = walker.leaf(w);
            w.margin[token] = walker.margin;
        }
    }
    __syncthreads();  // what the block's warps wrote is seen by all of them from here on
    for (uint32_t i = warp; i < upper + inner; i += warps) {
        const uint32_t node = i < upper ? node_above(root, upper, i) : node_under(root, i - upper);
        copy_row(rows + i * hidden, out + size_t{node} * hidden, hidden, lane, 32);
    }
    __syncthreads();
    // Groups of threads that have a token's columns between them, two vectors each: half a row apart.
    const uint32_t half = hidden / 2, group_threads = half / width, groups = block_threads / group_threads,
                   group = threadIdx.x / group_threads, column = threadIdx.x % group_threads * width;
    if (group >= groups) return;
    // Two tokens at a time: the rows above the subtree are read once for both.
    for (uint32_t at = begin + group; at < end; at += 2 * groups) {
        const uint32_t pair[2] = {tokens[at], tokens[min(at + groups, end - 1)]};
        float sums[2][2 * width];
#pragma unroll
        for (uint32_t t = 0; t < 2; ++t)
#pragma unroll
            for (uint32_t j = 0; j < width; ++j) {
                sums[t][j] = bias != nullptr ? bias[column + j] : 0.0F;
                sums[t][width + j] = bias != nullptr ? bias[half + column + j] : 0.0F;
            }
        const auto add = [&](float(&sum)[2 * width], float a, const Vector<float>& left,
                             const Vector<float>& right) {
#pragma unroll
            for (uint32_t j = 0; j < width; ++j) {
                sum[j] += a * left.values[j];
                sum[width + j] += a * right.values[j];
            }
        };
        const float* values[2] = {w.activations + size_t{pair[0]} * w.levels,
                                  w.activations + size_t{pair[1]} * w.levels};
        const float* above = rows + column;
#pragma unroll 2
        for (uint32_t level = 0; level < upper; ++level, above += hidden) {
            const auto left = load_vector(above), right = load_vector(above + half);
            add(sums[0], values[0][level], left, right);
            add(sums[1], values[1][level], left, right);
        }
#pragma unroll
        for (uint32_t t = 0; t < 2; ++t) {
            // Leaves of a subtree are the last level's nodes.
            const uint32_t place = (w.leaf[pair[t]] & ((1u << (lower - 1)) - 1)) + (1u << (lower - 1));
            for (uint32_t under = 0; under < lower; ++under) {
                const float* from = rows + (upper + (place >> (lower - 1 - under)) - 1) * hidden + column;
                add(sums[t], values[t][upper + under], load_vector(from), load_vector(from + half));
            }
            if (t == 1 && at + groups >= end) break;
#pragma unroll
            for (uint32_t k = 0; k < 2; ++k) {
                auto* target = reinterpret_cast<float4*>(y + size_t{pair[t]} * hidden + k * half + column);
                const float* sum = sums[t] + k * width;
                float4 value = make_float4(sum[0], sum[1], sum[2], sum[3]);
                if (accumulate) {
                    const float4 before = *target;
                    value = make_float4(before.x + value.x, before.y + value.y, before.z + value.z,
                                        before.w + value.w);
                }
                *target = value;
            }
        }
    }
}

// How many levels each step takes.
struct Steps {
    uint32_t upper = 0, lower = 0;
    size_t upper_bytes = 0, lower_bytes = 0;

    bool fit(const Trees& trees, size_t row_bytes, size_t memory) {
        memory -= std::min<size_t>(memory, 1024);  // what the system takes of a block's
        const auto bytes_of_upper = [&](size_t levels) { return ((size_t{1} << levels) - 1) * row_bytes; };
        const auto bytes_of_lower = [&](size_t levels) {
            return ((size_t{1} << levels) - 1 + trees.levels - levels) * row_bytes;
        };
        // As few subtree rows as there can be; the rest above.
        for (uint32_t levels = 1; levels < trees.levels; ++levels) {
            const auto above = static_cast<uint32_t>(trees.levels) - levels;
            if (bytes_of_lower(levels) > memory) return false;
            if (above > 7 || bytes_of_upper(above) > memory) continue;
            *this = {above, levels, bytes_of_upper(above), bytes_of_lower(levels)};
            return true;
        }
        return false;
    }
};
static_assert(most_subtrees == 1u << 7);

template <int vectors, bool exact>
void two_steps(const NeuronForest& forest, const ForestCall& call, const Steps& steps) {
    const WalkArguments<float> w(forest.trees, call.x, call);
    const unsigned processors = static_cast<unsigned>(call.device->processors), count = 1u << steps.upper;
    allow_block_memory(walk_upper<vectors, exact>, steps.upper_bytes);
    allow_block_memory(walk_lower<vectors, exact>, steps.lower_bytes);
    const Subtrees subtrees = no_tokens_yet(call, count);
    walk_upper<vectors, exact>
        <<<processors, block_threads, steps.upper_bytes, call.stream>>>(w, steps.upper, subtrees);
    const bool pairs = 2 * steps.lower_bytes + 4096 <= call.device->block_memory;
    const dim3 grid(count, std::max(1u, processors * (pairs ? 2 : 1) / count));
    walk_lower<vectors, exact><<<grid, block_threads, steps.lower_bytes, call.stream>>>(
        w, steps.upper, static_cast<const float*>(forest.out), forest.out_bias, subtrees,
        static_cast<float*>(call.y), call.accumulate);
    check_launch("two steps of a neuron tree");
}

}  // namespace

bool run_in_float_steps(const NeuronForest& forest, const ForestCall& call) {
    const Trees& t = forest.trees;
    const size_t row_bytes = t.hidden * sizeof(float);
    Steps steps;
    if (t.rows != TensorType::f32 || t.hidden > 1024 || !steps.fit(t, row_bytes, call.device->block_memory))
        return false;
    if (t.hidden == 384) {
        two_steps<3, true>(forest, call, steps);
    } else if (t.hidden == 768) {
        two_steps<6, true>(forest, call, steps);
    } else {
        two_steps<8, false>(forest, call, steps);
    }
    return true;
}

bool run_in_two_steps(const NeuronForest& forest, const ForestCall& call) {
    if (forest.trees.trees != 1 || forest.trees.gates != nullptr || call.tokens < fewest_for_two_steps)
        return false;
    return run_in_float_steps(forest, call) || run_in_tensor_steps(forest, call);
}

size_t order_words(const Trees& trees, size_t tokens) {
    const bool in_steps = trees.neurons && trees.trees == 1 && tokens >= fewest_for_two_steps;
    return in_steps ? most_subtrees * tokens : tokens;
}

}  // namespace espalier::cuda
