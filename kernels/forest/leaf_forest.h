// Leaf forest (arXiv 2308.14711, inference form): each tree walks `depth` nodes, n -> 2n + 1 (left) or 2n + 2
// (right, if x.w - t > 0), and runs the one small feed-forward layer of the leaf it ends in:
//   y += act(x U_leaf + b_leaf) D_leaf + c_leaf,
// or, gated as the dense parts of decoders are (SwiGLU, arXiv 2002.05202):
//   y += (act(x G_leaf) * (x U_leaf + b_leaf)) D_leaf + c_leaf.
// A forest may carry `shared_width` neurons more, which every token runs: a small dense part beside the
// leaves, computed in the same tiles, so that x is read and y written once; a gated one does not.
//
// Weights are packed once (leaf_pack.h does it), in one of three types, which is also x's:
//   f32    float32 throughout.
//   bf16   up and down rows and x are bf16; products are exact and sums float32; what the activation gives is
//          rounded to bf16.
//   s8     up and down rows and x are 8-bit, products and sums exact integers. An up row has one scale and a
//          token of x one. What the activation gives, times the scale of its down row, is rounded to 8 bits
//          with one scale a token and tree (absmax / 127); with rotated_activations both the activations,
//          before that scale, and the down rows are turned, those of a leaf and the shared ones each among
//          themselves (kernels/quantize/rotate.h). A token of which one of those products is not
//          finite has NaN throughout its output.
// Rows of the gate are as up rows are; what it gives is float32 until both are multiplied.
// Walks are float32: exact products of x and of node rows that are f32 or bf16, summed in float32.
#pragma once

#include "kernels/forest/forest.h"

namespace espalier {

// The small feed-forward layers of one kind: of every leaf (groups = trees * 2^depth), or the shared neurons
// (one group). `padded` is the width rounded up to leaf_width_multiple.
struct LeafNeurons {
    const uint32_t* up = nullptr;       // groups x packed matrix, hidden x padded (kernels/dense/panel.h)
    const uint32_t* down = nullptr;     // groups x packed matrix, width x hidden
    const float* up_bias = nullptr;     // [groups, padded], zeros where there is none
    const float* up_scale = nullptr;    // s8 only: [groups, padded]
    const float* down_scale = nullptr;  // s8 only: [groups, padded]
};

struct LeafForest {
    size_t hidden = 0, trees = 0, depth = 0, leaf_width = 0, shared_width = 0;
    Activation activation = Activation::gelu_erf;
    TieRule tie = TieRule::zero_goes_left;
    TensorType rows = TensorType::f32;  // of up and down, and of x: f32, bf16 or s8
    bool rotated_activations = false;   // s8 only
    bool gated = false;
    TensorType node_rows = TensorType::f32;  // f32, or bf16 where rows are not f32
    const void* node_weight = nullptr;       // [trees, 2^depth - 1, hidden]
    const float* node_threshold = nullptr;   // [trees, 2^depth - 1]
    LeafNeurons leaf, shared;
    LeafNeurons gate;  // of a gated forest: up rows of every leaf's gate, and biases that are zeros
    const float* bias = nullptr;  // [trees, 2^depth, padded hidden]: of the leaf, and in the first tree of
                                  // the shared neurons too

    size_t leaves() const { return size_t{1} << depth; }
    size_t groups() const { return trees * leaves(); }
};

// Widths, and the hidden size of biases, are padded to a multiple of this: a whole AVX-512 vector of float32.
inline constexpr size_t leaf_width_multiple = 16;
constexpr size_t leaf_padded(size_t width) {
    return (width + leaf_width_multiple - 1) / leaf_width_multiple * leaf_width_multiple;
}
// Tokens of one leaf that are computed together: a multiple of the tile height. 48 rows of 128 activations
// are 24 KiB, most of a first-level cache.
inline constexpr size_t leaf_token_block = 48;

// Bytes of scratch, 64-byte aligned, for a call on at most `tokens` tokens.
size_t scratch_bytes(const LeafForest& forest, size_t tokens);

using LeafForestKernel = void (*)(const LeafForest& forest, const ForestCall& call);

}  // namespace espalier
