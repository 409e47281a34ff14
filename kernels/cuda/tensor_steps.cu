// Two steps in bfloat16 on tensor cores, which are so fast that products nobody asked for cost nothing: the
// upper levels of 64 tokens are one product with all their nodes, from which each token picks its
// path. A block then takes 80 tokens of one subtree: one product with the subtree's nodes, each token picks
// its path, and one product of the activations (zeros off the path) with the output rows of the subtree and
// of the path above it, which all its tokens share.
#include <cuda_pipeline_primitives.h>

#include <algorithm>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/steps.cuh"

namespace espalier::cuda {
namespace {

constexpr uint32_t chunk = 64;          // of hidden, that lies in shared memory at once
constexpr uint32_t stride = chunk + 8;  // bfloat16 values between rows of a chunk
constexpr uint32_t upper_most = 7, lower_levels = 5, lower_nodes = 32;
constexpr uint32_t path_rows = 48;  // output rows of a block: at most 7 above, 31 of the subtree, zeros

// A product of M rows x N columns by WM x WN warps, each (M / WM) x (N / WN).
template <uint32_t M, uint32_t N, uint32_t WM, uint32_t WN>
struct Product {
    static constexpr unsigned threads = WM * WN * 32;
    static constexpr uint32_t fragments_m = M / WM / 16, fragments_n = N / WN / 16, stages = 3,
                              stage_values = (M + N) * stride, sum_stride = N + 4;
    static constexpr size_t stage_bytes = stages * stage_values * sizeof(bf16),
                            sum_bytes = M * sum_stride * sizeof(float);

    // z = A B^T over `hidden`, to rows of sum_stride; z may lie in the stages' memory. row_a, row_b: where a
    // row begins, or null for zeros.
    template <class RowA, class RowB>
    __device__ static void run(bf16* values, float* z, uint32_t hidden, const RowA& row_a,
                               const RowB& row_b) {
        const uint32_t warp = threadIdx.x / 32, m0 = warp / WN * (M / WM), n0 = warp % WN * (N / WN),
                       chunks = hidden / chunk;
        const auto fetch = [&](uint32_t c) {
            if (c < chunks) {
                bf16* to = values + c % stages * stage_values;
                for (uint32_t i = threadIdx.x; i < (M + N) * 8; i += threads) {
                    const uint32_t r = i / 8, column = i % 8 * 8;
                    const bf16* from = r < M ? row_a(r) : row_b(r - M);
                    bf16* target = to + r * stride + column;
                    if (from != nullptr) {
                        __pipeline_memcpy_async(target, from + c * chunk + column, 16);
                    } else {
                        *reinterpret_cast<uint4*>(target) = make_uint4(0, 0, 0, 0);
                    }
                }
            }
            __pipeline_commit();
        };
        Sums sums[fragments_m][fragments_n];
        for (auto& row : sums)
            for (Sums& s : row)
                s.clear();
        fetch(0);
        fetch(1);
        for (uint32_t c = 0; c < chunks; ++c) {
            __pipeline_wait_prior(1);
            __syncthreads();
            fetch(c + 2);
            const bf16* a = values + c % stages * stage_values;
            const bf16* b = a + M * stride;
#pragma unroll
            for (uint32_t k = 0; k < chunk; k += 16) {
                Piece left[fragments_m];
#pragma unroll
                for (uint32_t i = 0; i < fragments_m; ++i)
                    left[i] = load_left(a + (m0 + 16 * i) * stride + k, stride);
#pragma unroll
                for (uint32_t j = 0; j < fragments_n; ++j) {
                    const Piece right = load_right_by_column(b + (n0 + 16 * j) * stride + k, stride);
#pragma unroll
                    for (uint32_t i = 0; i < fragments_m; ++i)
                        sums[i][j].add(left[i], right);
                }
            }
        }
        __pipeline_wait_prior(0);
        __syncthreads();
#pragma unroll
        for (uint32_t i = 0; i < fragments_m; ++i)
#pragma unroll
            for (uint32_t j = 0; j < fragments_n; ++j)
                sums[i][j].store(z + (m0 + 16 * i) * sum_stride + n0 + 16 * j, sum_stride);
        __syncthreads();
    }
};

constexpr uint32_t upper_tokens = 64, lower_tokens = 80;
using UpperProduct = Product<upper_tokens, most_subtrees, 2, 4>;
using LowerProduct = Product<lower_tokens, lower_nodes, 5, 2>;
constexpr size_t upper_bytes = std::max(UpperProduct::stage_bytes, UpperProduct::sum_bytes);

__global__ void __launch_bounds__(UpperProduct::threads, 2)
    walk_upper(const WalkArguments<bf16> w, uint32_t upper, const Subtrees subtrees) {
#if __CUDA_ARCH__ >= 800
    extern __shared__ uint4 memory[];
    const uint32_t first = blockIdx.x * upper_tokens, nodes = (1u << upper) - 1;
    UpperProduct::run(
        reinterpret_cast<bf16*>(memory), reinterpret_cast<float*>(memory), w.hidden,
        [&](uint32_t r) { return first + r < w.tokens ? w.x + size_t{first + r} * w.hidden : nullptr; },
        [&](uint32_t n) { return n < nodes ? w.nodes + size_t{n} * w.hidden : nullptr; });
    const uint32_t token = first + threadIdx.x;
    if (threadIdx.x >= upper_tokens || token >= w.tokens) return;
    const float* z = reinterpret_cast<const float*>(memory) + threadIdx.x * UpperProduct::sum_stride;
    float* activations = w.activations + size_t{token} * w.levels;
    Walker walker;
    for (uint32_t level = 0; level < upper; ++level) {
        const float value = z[walker.node] + w.offset_of(0, walker.node);
        activations[level] = neuron_value(w, value);
        walker.step(w, level, value);
    }
    w.margin[token] = walker.margin;
    subtrees.add(walker.node - nodes, token);
#endif
}

// Shared memory of the lower step: the product's stages, and in their place, when it is done, output rows
// whole; behind them sums, first the product's, then of 64 columns of y; then activations.
struct LowerMemory {
    static constexpr uint32_t value_stride = path_rows + 8, sum_stride = chunk + 4;
    static constexpr size_t sum_bytes = lower_tokens * sum_stride * sizeof(float),
                            value_bytes = lower_tokens * value_stride * sizeof(bf16);
    static_assert(LowerProduct::sum_bytes <= sum_bytes);
    bf16* rows;
    float* sums;  // [lower_tokens] rows of sum_stride
    bf16* values;

    __host__ __device__ static uint32_t row_stride(size_t hidden) {
        return static_cast<uint32_t>(hidden) + 8;
    }
    __host__ __device__ static size_t row_bytes(size_t hidden) {
        const size_t out = path_rows * row_stride(hidden) * sizeof(bf16);
        return out > LowerProduct::stage_bytes ? out : LowerProduct::stage_bytes;
    }
    static size_t bytes(size_t hidden) { return row_bytes(hidden) + sum_bytes + value_bytes; }
    __device__ LowerMemory(uint4* memory, uint32_t hidden)
        : rows(reinterpret_cast<bf16*>(memory)),
          sums(reinterpret_cast<float*>(reinterpret_cast<char*>(memory) + row_bytes(hidden))),
          values(reinterpret_cast<bf16*>(reinterpret_cast<char*>(sums) + sum_bytes)) {}
};

// Block (s, p) takes every gridDim.y-th 80 tokens of subtree s.
__global__ void __launch_bounds__(LowerProduct::threads, 2)
    walk_lower(const WalkArguments<bf16> w, uint32_t upper, const bf16* out, const float* bias,
               const Subtrees subtrees, float* y, bool accumulate) {
#if __CUDA_ARCH__ >= 800
    constexpr unsigned threads = LowerProduct::threads;
    extern __shared__ uint4 shared[];
    __shared__ uint32_t tokens[lower_tokens];
    const LowerMemory memory(shared, w.hidden);
    const uint32_t count = subtrees.counts[blockIdx.x], root = (1u << upper) - 1 + blockIdx.x,
                   lower = w.levels - upper, inner = (1u << lower) - 1, warp = threadIdx.x / 32,
                   row_stride = LowerMemory::row_stride(w.hidden);
    for (uint32_t first = blockIdx.y * lower_tokens; first < count; first += gridDim.y * lower_tokens) {
        const uint32_t here = min(lower_tokens, count - first);
        const bool has_token = threadIdx.x < here;
        const uint32_t token = has_token ? subtrees.of(blockIdx.x)[first + threadIdx.x] : 0;
        bf16* values = memory.values + threadIdx.x * LowerMemory::value_stride;
        float* activations = w.activations + size_t{token} * w.levels;
        Walker walker;
        walker.node = root;
        __syncthreads();  // the tokens before are done
        if (has_token) tokens[threadIdx.x] = token;
        for (uint32_t i = threadIdx.x; i < LowerMemory::value_bytes / 16; i += threads)
            reinterpret_cast<uint4*>(memory.values)[i] = make_uint4(0, 0, 0, 0);
        __syncthreads();
        if (has_token) {
            walker.margin = w.margin[token];
            for (uint32_t level = 0; level < upper; ++level)
                values[level] = narrowed<bf16>(activations[level]);
        }
        LowerProduct::run(
            memory.rows, memory.sums, w.hidden,
            [&](uint32_t r) { return r < here ? w.x + size_t{tokens[r]} * w.hidden : nullptr; },
            [&](uint32_t n) {
                return n < inner ? w.nodes + size_t{node_under(root, n)} * w.hidden : nullptr;
            });
        // Output rows come while tokens walk.
        for (uint32_t r = warp; r < path_rows; r += threads / 32) {
            const uint32_t node = r < upper ? node_above(root, upper, r) : node_under(root, r - upper);
            for (uint32_t column = threadIdx.x % 32 * 8; column < w.hidden; column += 256) {
                bf16* target = memory.rows + r * row_stride + column;
                if (r < upper + inner) {
                    __pipeline_memcpy_async(target, out + size_t{node} * w.hidden + column, 16);
                } else {
                    *reinterpret_cast<uint4*>(target) = make_uint4(0, 0, 0, 0);
                }
            }
        }
        __pipeline_commit();
        if (has_token) {
            const float* z = memory.sums + threadIdx.x * LowerProduct::sum_stride;
            uint32_t local = 0;
            for (uint32_t under = 0; under < lower; ++under) {
                const float value = z[local] + w.offset_of(0, walker.node), a = neuron_value(w, value);
                activations[upper + under] = a;
                values[upper + local] = narrowed<bf16>(a);
                walker.step(w, upper + under, value);
                local = 2 * local + (goes_right(value, w.zero_goes_right) ? 2 : 1);
            }
            w.leaf[token] = walker.leaf(w);
            w.margin[token] = walker.margin;
        }
        __pipeline_wait_prior(0);
        __syncthreads();
        // y = activations x output rows, 64 columns at a time: a warp has 16 tokens and 32 columns.
        const uint32_t m0 = warp / 2 * 16, n0 = warp % 2 * 32;
        Piece left[path_rows / 16];
#pragma unroll
        for (uint32_t k = 0; k < path_rows / 16; ++k)
            left[k] =
                load_left(memory.values + m0 * LowerMemory::value_stride + 16 * k, LowerMemory::value_stride);
        for (uint32_t c = 0; c < w.hidden; c += chunk) {
            Sums sums[2];
            sums[0].clear();
            sums[1].clear();
#pragma unroll
            for (uint32_t k = 0; k < path_rows / 16; ++k) {
#pragma unroll
                for (uint32_t j = 0; j < 2; ++j)
                    sums[j].add(left[k],
                                load_right(memory.rows + 16 * k * row_stride + c + n0 + 16 * j, row_stride));
            }
            // A warp's own 16 x 32 sums: no other warp reads them.
            float* own = memory.sums + m0 * LowerMemory::sum_stride + n0;
            sums[0].store(own, LowerMemory::sum_stride);
            sums[1].store(own + 16, LowerMemory::sum_stride);
            __syncwarp();
#pragma unroll
            for (uint32_t i = threadIdx.x % 32; i < 16 * 8; i += 32) {
                const uint32_t r = i / 8, column = i % 8 * 4;
                if (m0 + r >= here) continue;
                float4 value = *reinterpret_cast<const float4*>(own + r * LowerMemory::sum_stride + column);
                auto* target =
                    reinterpret_cast<float4*>(y + size_t{tokens[m0 + r]} * w.hidden + c + n0 + column);
                const auto add = [&](const float4& other) {
                    value.x += other.x, value.y += other.y, value.z += other.z, value.w += other.w;
                };
                if (bias != nullptr) add(*reinterpret_cast<const float4*>(bias + c + n0 + column));
                if (accumulate) add(*target);
                *target = value;
            }
            __syncwarp();
        }
    }
#endif
}

}  // namespace

bool run_in_tensor_steps(const NeuronForest& forest, const ForestCall& call) {
    const Trees& t = forest.trees;
    if (t.rows != TensorType::bf16 || !call.device->has_bf16_products() || t.hidden % chunk != 0 ||
        t.hidden < 2 * chunk || t.levels < 2 || t.levels > upper_most + lower_levels ||
        std::max(upper_bytes, LowerMemory::bytes(t.hidden)) > call.device->block_memory - 1024)
        return false;
    const auto upper = static_cast<uint32_t>(t.levels > lower_levels + 1 ? t.levels - lower_levels : 1);
    const WalkArguments<bf16> w(t, call.x, call);
    const Subtrees subtrees = no_tokens_yet(call, 1u << upper);
    allow_block_memory(walk_upper, upper_bytes);
    const size_t lower_bytes = LowerMemory::bytes(t.hidden);
    allow_block_memory(walk_lower, lower_bytes);
    walk_upper<<<blocks_for(call.tokens, upper_tokens), UpperProduct::threads, upper_bytes, call.stream>>>(
        w, upper, subtrees);
    // Blocks for a quarter more than a subtree has on average; where some have more, blocks take several
    // turns.
    const size_t subtree_tokens = (size_t{1} << upper) * lower_tokens;
    const dim3 grid(1u << upper, std::max(1u, blocks_for(call.tokens * 5 / 4, subtree_tokens)));
    walk_lower<<<grid, LowerProduct::threads, lower_bytes, call.stream>>>(
        w, upper, static_cast<const bf16*>(forest.out), forest.out_bias, subtrees, call.y, call.accumulate);
    check_launch("two steps of a neuron tree on tensor cores");
    return true;
}

}  // namespace espalier::cuda
