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

// Of many tokens the second step and the outputs are one launch. Its products: of nodes, then of output
// columns, whose rows lie in two buffers of shared memory in turn.
using LowerNodes = Product<64, lower_nodes, 4, 2, 3, Right::by_column>;
using Outputs = Product<64, 128, 2, 4, 1, Right::by_depth>;

struct LowerMemory {
    static constexpr uint32_t tile = LowerNodes::rows, threads = LowerNodes::threads,
                              picks = tile * Outputs::chunk, rows = pick_values * Outputs::columns;
    // Stages of the first product, then results of the second; what tokens picked; output rows.
    static constexpr size_t stages = LowerNodes::bytes > Outputs::sum_bytes ? LowerNodes::bytes
                                                                            : Outputs::sum_bytes,
                            bytes = stages + (picks + 2 * rows) * sizeof(bf16);
    static_assert(Outputs::threads == threads && Outputs::rows == tile);

    uint4* begin;
    __device__ bf16* stage() const { return reinterpret_cast<bf16*>(begin); }
    __device__ float* sums() const { return reinterpret_cast<float*>(begin); }
    __device__ bf16* left() const { return stage() + stages / sizeof(bf16); }
    // Place of the 16 bytes number `piece` of a token's row, as Product has them.
    __device__ bf16* left(uint32_t r, uint32_t piece) const {
        return left() + r * Outputs::chunk + (piece ^ r % 8) * 8;
    }
    __device__ bf16* right(uint32_t which) const { return left() + picks + which % 2 * rows; }
};

// Block (s, p) takes part p of the tokens of subtree s.
template <class Y>
__global__ void __launch_bounds__(LowerMemory::threads, 3)
    walk_lower_and_add(const WalkArguments<bf16> w, uint32_t upper, const bf16* out, const float* bias,
                       const Subtrees subtrees, const Picks picks, Y* y, bool accumulate) {
    constexpr uint32_t pieces = Outputs::columns / 8, step = LowerMemory::threads / pieces,
                       copies = pick_values / step;
    static_assert(pick_values % step == 0 && step % 8 == 0);
    extern __shared__ __align__(128) uint4 begin[];
    const LowerMemory memory{begin};
    const uint32_t root = (1u << upper) - 1 + blockIdx.x, lower = w.levels - upper, inner = (1u << lower) - 1,
                   end = subtrees.first(blockIdx.x, blockIdx.y + 1, gridDim.y), row = threadIdx.x / pieces,
                   piece = threadIdx.x % pieces;
    // Output rows that this thread copies.
    const bf16* from[copies];
#pragma unroll
    for (uint32_t i = 0; i < copies; ++i) {
        const uint32_t n = row + i * step;
        const bool there = n < picks_above ? n < upper : n - picks_above < inner;
        const uint32_t node = n < picks_above ? node_above(root, upper, min(n, upper))
                                              : node_under(root, min(n - picks_above, inner - 1));
        from[i] = there ? out + size_t{node} * w.hidden + piece * 8 : nullptr;
    }
    const auto fetch = [&](uint32_t which) {
        const uint32_t column = which * Outputs::columns;
#pragma unroll
        for (uint32_t i = 0; i < copies; ++i)
            copy_async(memory.right(which) + (row + i * step) * Outputs::columns + (piece ^ row % 8) * 8,
                       from[i] + column, from[i] != nullptr && column + piece * 8 < w.hidden);
        __pipeline_commit();
    };
    for (uint32_t first = subtrees.first(blockIdx.x, blockIdx.y, gridDim.y); first < end;
         first += LowerMemory::tile) {
        const uint32_t here = min(LowerMemory::tile, end - first);
        const uint32_t* tokens = subtrees.of(blockIdx.x) + first;
        {
            LowerNodes product;
            product.run(
                memory.stage(), w.hidden, LowerNodes::columns,
                [&](uint32_t r) { return r < here ? w.x + size_t{tokens[r]} * w.hidden : nullptr; },
                [&](uint32_t n) {
                    return n < inner ? w.nodes + size_t{node_under(root, n)} * w.hidden : nullptr;
                });
            fetch(0);
            fetch(1);
            product.store(memory.sums());
        }
        if (threadIdx.x < LowerMemory::tile) {
            const uint32_t r = threadIdx.x, token = tokens[min(r, here - 1)];
            const uint4 nothing = make_uint4(0, 0, 0, 0);
            const auto put = [&](uint32_t p, const uint4& value) {
                *reinterpret_cast<uint4*>(memory.left(r, p)) = value;
            };
            put(0, r < here ? *picks.vectors(token) : nothing);
            for (uint32_t p = vectors_above; p < pick_values / 8; ++p)
                put(p, nothing);
            if (r < here) {
                Walker walker;
                walker.node = root;
                walker.margin = w.margin[token];
                uint32_t local = 0;
                for (uint32_t under = 0; under < lower; ++under) {
                    const float value =
                        memory.sums()[r * LowerNodes::sum_stride + local] + w.offset_of(0, walker.node);
                    memory.left(r, vectors_above + local / 8)[local % 8] =
                        narrowed<bf16>(narrowly_activated(w.activation, value));
                    walker.step(w, upper + under, value);
                    local = 2 * local + (goes_right(value, w.zero_goes_right) ? 2 : 1);
                }
                w.leaf[token] = walker.leaf(w);
                w.margin[token] = walker.margin;
            }
        }
        for (uint32_t which = 0; which * Outputs::columns < w.hidden; ++which) {
            const uint32_t column = which * Outputs::columns;
            __pipeline_wait_prior(1);
            __syncthreads();  // and what tokens picked is there, and results before these have been read
            Outputs product;
            product.clear();
            product.multiply<pick_values>(memory.left(), memory.right(which));
            const auto target = [&](uint32_t r) {
                return r < here ? y + size_t{tokens[r]} * w.hidden + column : nullptr;
            };
            if constexpr (sizeof(Y) == sizeof(bf16)) {
                product.write_rounded(
                    memory.stage(), w.hidden - column, target,
                    [&](uint32_t c) {
                        return bias != nullptr && column + c < w.hidden
                                   ? *reinterpret_cast<const float2*>(bias + column + c)
                                   : make_float2(0, 0);
                    },
                    [](float sum) { return sum; });
            } else {
                product.store(memory.sums());
                Outputs::write(memory.sums(), w.hidden - column, accumulate, target, [&](uint32_t c) {
                    return bias != nullptr ? *reinterpret_cast<const float4*>(bias + column + c)
                                           : make_float4(0, 0, 0, 0);
                });
            }
            fetch(which + 2);  // where all have been multiplied: both ways of writing wait for it
        }
        __pipeline_wait_prior(0);
        __syncthreads();  // before anything is written again
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
    template <class Y>
    void second_step_and_outputs(Y* y) const {
        allow_block_memory(walk_lower_and_add<Y>, LowerMemory::bytes);
        const dim3 grid(1u << upper, parts(LowerMemory::tile));
        walk_lower_and_add<Y><<<grid, LowerMemory::threads, LowerMemory::bytes, call.stream>>>(
            {forest.trees, call.x, call}, upper, static_cast<const bf16*>(forest.out), forest.out_bias,
            subtrees, picks, y, call.accumulate);
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
using UpperOfFew = Product<32, most_subtrees, 1, 4, 4, Right::by_column>;
using LowerOfFew = Product<32, lower_nodes, 2, 2, 4, Right::by_column>;
using OutputOfFew = Product<32, 128, 1, 4, 1, Right::by_depth>;

}  // namespace

static_assert(LowerMemory::bytes <= UpperOfMany::bytes);
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
        if (call.narrow) {
            launch.second_step_and_outputs(static_cast<bf16*>(call.y));
        } else {
            launch.second_step_and_outputs(static_cast<float*>(call.y));
        }
    } else {
        launch.first_step<UpperOfFew>();
        launch.second_step<LowerOfFew>();
        launch.outputs<OutputOfFew>();
    }
    check_launch("two steps of a neuron tree on tensor cores");
    return true;
}

}  // namespace espalier::cuda
