// Two steps in bfloat16 on tensor cores, which are so fast that products nobody asked for cost nothing: the
// upper levels of a block's tokens are one product with all their nodes, from which each token picks its
// path; the tokens of a subtree then take a product with the subtree's nodes and pick the rest. What a token
// picked lies in one row, zeros off the path, and y is the product of such rows with the output rows of the
// subtree and of the path above it, which all its tokens share: spread over many blocks, since y is most of
// what is moved.
#include <algorithm>

#include "kernels/cuda/product.cuh"
#include "kernels/cuda/steps.cuh"

namespace espalier::cuda {
namespace {

constexpr uint32_t upper_most = 7, lower_levels = 5, lower_nodes = 32;
// What a token picked: of the levels above, of its subtree's nodes in heap order, zeros.
constexpr uint32_t picks_above = 8, pick_values = picks_above + lower_nodes + 8;

struct Picks {
    bf16* values;  // [tokens, pick_values]
    __device__ bf16* of(uint32_t token) const { return values + size_t{token} * pick_values; }
    __device__ uint4* vectors(uint32_t token) const { return reinterpret_cast<uint4*>(of(token)); }
};
constexpr uint32_t vectors_above = picks_above / 8, vectors_under = pick_values / 8 - vectors_above;

template <class P>
__global__ void __launch_bounds__(P::threads)
    walk_upper(const WalkArguments<bf16> w, uint32_t upper, const Subtrees subtrees, const Picks picks) {
    extern __shared__ __align__(128) uint4 memory[];
    const uint32_t first = blockIdx.x * P::rows, nodes = (1u << upper) - 1;
    auto* z = reinterpret_cast<float*>(memory);
    {
        P product;
        product.run(
            reinterpret_cast<bf16*>(memory), w.hidden, P::columns,
            [&](uint32_t r) { return first + r < w.tokens ? w.x + size_t{first + r} * w.hidden : nullptr; },
            [&](uint32_t n) { return n < nodes ? w.nodes + size_t{n} * w.hidden : nullptr; });
        product.store(z);
    }
    const uint32_t token = first + threadIdx.x;
    if (threadIdx.x >= P::rows || token >= w.tokens) return;
    uint4 row = make_uint4(0, 0, 0, 0);
    auto* above = reinterpret_cast<bf16*>(&row);
    Walker walker;
#pragma unroll
    for (uint32_t level = 0; level < upper_most; ++level) {
        if (level >= upper) break;
        const float value = z[threadIdx.x * P::sum_stride + walker.node] + w.offset_of(0, walker.node);
        above[level] = narrowed<bf16>(narrowly_activated(w.activation, value));
        walker.step(w, level, value);
    }
    *picks.vectors(token) = row;
    w.margin[token] = walker.margin;
    subtrees.add(walker.node - nodes, token);
}

// Block (s, p) takes every gridDim.y-th tile of subtree s.
template <class P>
__global__ void __launch_bounds__(P::threads)
    walk_lower(const WalkArguments<bf16> w, uint32_t upper, const Subtrees subtrees, const Picks picks) {
    constexpr uint32_t row_stride = vectors_under * 8 + 8;
    extern __shared__ __align__(128) uint4 memory[];
    __shared__ __align__(16) bf16 rows[P::rows * row_stride];
    const uint32_t count = subtrees.counts[blockIdx.x], root = (1u << upper) - 1 + blockIdx.x,
                   lower = w.levels - upper, inner = (1u << lower) - 1;
    auto* z = reinterpret_cast<float*>(memory);
    for (uint32_t first = blockIdx.y * P::rows; first < count; first += gridDim.y * P::rows) {
        const uint32_t here = min(P::rows, count - first);
        const uint32_t* tokens = subtrees.of(blockIdx.x) + first;
        {
            P product;
            product.run(
                reinterpret_cast<bf16*>(memory), w.hidden, P::columns,
                [&](uint32_t r) { return r < here ? w.x + size_t{tokens[r]} * w.hidden : nullptr; },
                [&](uint32_t n) {
                    return n < inner ? w.nodes + size_t{node_under(root, n)} * w.hidden : nullptr;
                });
            for (uint32_t i = threadIdx.x; i < P::rows * row_stride / 8; i += P::threads)
                reinterpret_cast<uint4*>(rows)[i] = make_uint4(0, 0, 0, 0);
            product.store(z);
        }
        if (threadIdx.x < here) {
            const uint32_t token = tokens[threadIdx.x];
            Walker walker;
            walker.node = root;
            walker.margin = w.margin[token];
            uint32_t local = 0;
            for (uint32_t under = 0; under < lower; ++under) {
                const float value = z[threadIdx.x * P::sum_stride + local] + w.offset_of(0, walker.node);
                rows[threadIdx.x * row_stride + local] =
                    narrowed<bf16>(narrowly_activated(w.activation, value));
                walker.step(w, upper + under, value);
                local = 2 * local + (goes_right(value, w.zero_goes_right) ? 2 : 1);
            }
            w.leaf[token] = walker.leaf(w);
            w.margin[token] = walker.margin;
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < here * vectors_under; i += P::threads) {
            const uint32_t r = i / vectors_under, v = i % vectors_under;
            picks.vectors(tokens[r])[vectors_above + v] =
                *reinterpret_cast<const uint4*>(rows + r * row_stride + v * 8);
        }
        __syncthreads();  // before z and rows are written again
    }
}

// Block (s, p, c): columns c of the same tokens.
template <class P, class Y>
__global__ void __launch_bounds__(P::threads)
    add_picks(const WalkArguments<bf16> w, uint32_t upper, const bf16* out, const float* bias,
              const Subtrees subtrees, const Picks picks, Y* y, bool accumulate) {
    extern __shared__ __align__(128) uint4 memory[];
    const uint32_t count = subtrees.counts[blockIdx.x], root = (1u << upper) - 1 + blockIdx.x,
                   inner = (1u << (w.levels - upper)) - 1, column = blockIdx.z * P::columns;
    for (uint32_t first = blockIdx.y * P::rows; first < count; first += gridDim.y * P::rows) {
        const uint32_t here = min(P::rows, count - first);
        const uint32_t* tokens = subtrees.of(blockIdx.x) + first;
        P product;
        product.run(
            reinterpret_cast<bf16*>(memory), pick_values, w.hidden - column,
            [&](uint32_t r) { return r < here ? picks.of(tokens[r]) : nullptr; },
            [&](uint32_t n) -> const bf16* {
                if (n < picks_above ? n >= upper : n - picks_above >= inner) return nullptr;
                const uint32_t node =
                    n < picks_above ? node_above(root, upper, n) : node_under(root, n - picks_above);
                return out + size_t{node} * w.hidden + column;
            });
        auto* z = reinterpret_cast<float*>(memory);
        product.store(z);
        P::write(
            z, w.hidden - column, accumulate,
            [&](uint32_t r) { return r < here ? y + size_t{tokens[r]} * w.hidden + column : nullptr; },
            [&](uint32_t c) {
                return bias != nullptr ? *reinterpret_cast<const float4*>(bias + column + c)
                                       : make_float4(0, 0, 0, 0);
            });
        __syncthreads();  // before the stages are written again
    }
}

struct Launch {
    const NeuronForest& forest;
    const ForestCall& call;
    uint32_t upper;
    Subtrees subtrees;
    Picks picks;

    // Blocks for a quarter more tokens than a subtree has on average; where some have more, blocks take
    // several turns.
    unsigned parts(uint32_t tile) const {
        return std::max(1u, blocks_for(call.tokens * 5 / 4, (size_t{1} << upper) * tile));
    }
    template <class P>
    void first_step() const {
        constexpr size_t bytes = P::bytes;
        allow_block_memory(walk_upper<P>, bytes);
        walk_upper<P><<<blocks_for(call.tokens, P::rows), P::threads, bytes, call.stream>>>(
            {forest.trees, call.x, call}, upper, subtrees, picks);
    }
    template <class P>
    void second_step() const {
        constexpr size_t bytes = P::bytes;
        allow_block_memory(walk_lower<P>, bytes);
        walk_lower<P><<<dim3(1u << upper, parts(P::rows)), P::threads, bytes, call.stream>>>(
            {forest.trees, call.x, call}, upper, subtrees, picks);
    }
    template <class P>
    void outputs() const {
        if (call.narrow) {
            outputs<P>(static_cast<bf16*>(call.y));
        } else {
            outputs<P>(static_cast<float*>(call.y));
        }
    }
    template <class P, class Y>
    void outputs(Y* y) const {
        static_assert(pick_values <= P::chunk);  // one stage is enough
        allow_block_memory(add_picks<P, Y>, P::bytes);
        const dim3 grid(1u << upper, parts(P::rows), blocks_for(forest.trees.hidden, P::columns));
        add_picks<P, Y><<<grid, P::threads, P::bytes, call.stream>>>(
            {forest.trees, call.x, call}, upper, static_cast<const bf16*>(forest.out), forest.out_bias,
            subtrees, picks, y, call.accumulate);
    }
};

using UpperOfMany = Product<64, most_subtrees, 2, 4, 4, Right::by_column>;
using LowerOfMany = Product<64, lower_nodes, 4, 1, 4, Right::by_column>;
using OutputOfMany = Product<64, 64, 2, 2, 1, Right::by_depth>;
using UpperOfFew = Product<32, most_subtrees, 1, 4, 4, Right::by_column>;
using LowerOfFew = Product<32, lower_nodes, 2, 2, 4, Right::by_column>;
using OutputOfFew = Product<32, 128, 1, 4, 1, Right::by_depth>;

}  // namespace

static_assert(pick_values * sizeof(bf16) <= tensor_step_floats * sizeof(float));

bool run_in_tensor_steps(const NeuronForest& forest, const ForestCall& call) {
    const Trees& t = forest.trees;
    if (t.rows != TensorType::bf16 || !call.device->has_bf16_products() || t.levels < 2 ||
        t.levels > upper_most + lower_levels || UpperOfFew::bytes > call.device->block_memory - 1024)
        return false;
    const auto upper = static_cast<uint32_t>(t.levels > lower_levels + 1 ? t.levels - lower_levels : 1);
    const Launch launch{forest,
                        call,
                        upper,
                        no_tokens_yet(call, 1u << upper),
                        {reinterpret_cast<bf16*>(call.scratch.activations)}};
    // Large tiles where they still find every processor something to do.
    const bool many = call.tokens >= 64 * static_cast<size_t>(call.device->processors) &&
                      UpperOfMany::bytes <= call.device->block_memory - 1024;
    if (many) {
        launch.first_step<UpperOfMany>();
        launch.second_step<LowerOfMany>();
        launch.outputs<OutputOfMany>();
    } else {
        launch.first_step<UpperOfFew>();
        launch.second_step<LowerOfFew>();
        launch.outputs<OutputOfFew>();
    }
    check_launch("two steps of a neuron tree on tensor cores");
    return true;
}

}  // namespace espalier::cuda
