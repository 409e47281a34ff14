// Conditional matrix multiplication: the feed-forward parts that are trees.
//
// leaf forest (arXiv 2308.14711, inference form): each tree walks `depth` nodes, n -> 2n + 1 (left) or
//   2n + 2 (right, if x.w - t > 0), and runs the one small feed-forward layer of the leaf it ends in:
//   y += act(x U_leaf + b_leaf) D_leaf + c_leaf.
// neuron forest (arXiv 2311.10770, Algorithm 1): every node of the path is a neuron: z = x.in_n + b_n,
//   y += act(z) out_n, and z > 0 goes right.
//
// Routing is float32 on every instruction set. The margin of a walk is the smallest |test value| on it: a
// margin under `hairline` may end in another leaf elsewhere, because sums are rounded in another order.
// A test value that is NaN goes left (no comparison with it is true) and has margin NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace espalier {

inline constexpr float hairline = 1e-4F;

// Where each token went: [tokens, trees]. For neuron forests `leaf` is the last node's place in its level.
struct ForestRoutes {
    uint32_t* leaf = nullptr;
    float* margin = nullptr;
};

struct LeafForest {
    size_t hidden = 0, trees = 0, depth = 0, leaf_width = 0;
    // leaf_width rounded up to leaf_width_multiple; the extra neurons of `up` and `up_bias` are zero.
    size_t padded_width = 0;
    Activation activation = Activation::gelu_erf;
    TieRule tie = TieRule::zero_goes_left;
    const float* node_weight = nullptr;     // [trees, 2^depth - 1, hidden]
    const float* node_threshold = nullptr;  // [trees, 2^depth - 1]
    const float* up = nullptr;  // [trees, 2^depth, hidden, padded_width]: transposed, so that a tile needs no
                                // sums across lanes
    const float* up_bias = nullptr;  // [trees, 2^depth, padded_width], or null
    const float* down = nullptr;     // [trees, 2^depth, leaf_width, hidden]; readable 64 floats past its end
    const float* leaf_bias = nullptr;  // [trees, 2^depth, hidden], or null; readable as `down` is

    size_t leaves() const { return size_t{1} << depth; }
};

struct NeuronForest {
    size_t hidden = 0, trees = 0, depth = 0;
    Activation activation = Activation::gelu_erf;
    TieRule tie = TieRule::zero_goes_left;
    const float* in = nullptr;        // [trees, 2^(depth+1) - 1, hidden]
    const float* in_bias = nullptr;   // [trees, 2^(depth+1) - 1], or null
    const float* out = nullptr;       // [trees, 2^(depth+1) - 1, hidden]; readable 64 floats past its end
    const float* out_bias = nullptr;  // [hidden], or null

    size_t nodes() const { return (size_t{2} << depth) - 1; }
};

// leaf_width is padded to a multiple of this: a whole AVX-512 vector of float32.
inline constexpr size_t leaf_width_multiple = 16;
// Tokens of one leaf that are computed together: a multiple of the tile heights (6 and 4). 48 rows of
// 64 activations are 12 KiB, a third of a first-level cache.
inline constexpr size_t leaf_token_block = 48;

// Bytes of scratch, 64-byte aligned, for a call on at most `tokens` tokens.
size_t scratch_bytes(const LeafForest& forest, size_t tokens);
size_t scratch_bytes(const NeuronForest& forest, size_t tokens);

// y += forest(x). x, y: [tokens, hidden] float32, y not x; y is readable and writable only within its rows.
// routes is filled. A token's result does not depend on the other tokens of the call.
using LeafForestKernel = void (*)(const LeafForest& forest, const float* x, size_t tokens, float* y,
                                  const ForestRoutes& routes, std::byte* scratch);
using NeuronForestKernel = void (*)(const NeuronForest& forest, const float* x, size_t tokens, float* y,
                                    const ForestRoutes& routes, std::byte* scratch);

}  // namespace espalier
