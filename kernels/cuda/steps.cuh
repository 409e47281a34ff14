// One large neuron tree and many tokens are walked in two steps: the upper levels for all tokens, then,
// subtree by subtree, the lower levels of those that stand before it. What both ways of doing so share
// (two_steps.cu: float32; tensor_steps.cu: bfloat16 on tensor cores).
#pragma once

#include "kernels/cuda/walk.cuh"

namespace espalier::cuda {

inline constexpr uint32_t most_subtrees = 128;

// Tokens before each subtree: counts[s] of them, tokens[s * stride ..], in no order.
struct Subtrees {
    uint32_t* counts;
    uint32_t* tokens;
    uint32_t stride;

    __device__ void add(uint32_t subtree, uint32_t token) const {
        tokens[size_t{subtree} * stride + atomicAdd(counts + subtree, 1u)] = token;
    }
    // Of part `part` of `parts` of a subtree's tokens.
    __device__ uint32_t first(uint32_t subtree, uint32_t part, uint32_t parts) const {
        return static_cast<uint32_t>(size_t{counts[subtree]} * part / parts);
    }
    __device__ const uint32_t* of(uint32_t subtree) const { return tokens + size_t{subtree} * stride; }
};

inline Subtrees no_tokens_yet(const ForestCall& call, uint32_t subtrees) {
    check(cudaMemsetAsync(call.scratch.counts, 0, subtrees * sizeof(uint32_t), call.stream),
          "clearing counts");
    return {call.scratch.counts, call.scratch.order, static_cast<uint32_t>(call.tokens)};
}

// Node i of a subtree, in heap order, among those of the tree; `root`: the subtree's root.
__device__ inline uint32_t node_under(uint32_t root, uint32_t i) {
    const uint32_t under = 31 - __clz(i + 1);
    return ((root + 1) << under) - 1 + (i + 1 - (1u << under));
}

// The node at `level` on the path to `node`, which is in level `last`.
__device__ inline uint32_t node_above(uint32_t node, uint32_t last, uint32_t level) {
    return ((node + 1) >> (last - level)) - 1;
}

bool run_in_float_steps(const NeuronForest& forest, const ForestCall& call);
bool run_in_tensor_steps(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier::cuda
