// Leaf forest (arXiv 2308.14711, inference form): each tree walks `depth` nodes, n -> 2n + 1 (left) or 2n + 2
// (right, if x.w - t > 0), and runs the one small feed-forward layer of the leaf it ends in:
//   y += act(x U_leaf + b_leaf) D_leaf + c_leaf.
#pragma once

#include "kernels/forest/forest.h"

namespace espalier {

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

// leaf_width is padded to a multiple of this: a whole AVX-512 vector of float32.
inline constexpr size_t leaf_width_multiple = 16;
// Tokens of one leaf that are computed together: a multiple of the tile heights (6 and 4). 48 rows of
// 64 activations are 12 KiB, a third of a first-level cache.
inline constexpr size_t leaf_token_block = 48;

// Bytes of scratch, 64-byte aligned, for a call on at most `tokens` tokens.
size_t scratch_bytes(const LeafForest& forest, size_t tokens);

using LeafForestKernel = void (*)(const LeafForest& forest, const ForestCall& call);

}  // namespace espalier
