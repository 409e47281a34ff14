// Neuron forest (UltraFastBERT, arXiv 2311.10770, Algorithm 1): every node of the path is a neuron:
// z = x.in_n + b_n, y += act(z) out_n, and z > 0 goes right (n -> 2n + 2), else left (2n + 1).
// Gated, as the dense parts of decoders are (SwiGLU, arXiv 2002.05202): g = x.gate_n, y += act(g) z out_n,
// and the sign of g chooses, or that of z (routes_on_gate).
#pragma once

#include "kernels/forest/forest.h"

namespace espalier {

struct NeuronForest {
    size_t hidden = 0, trees = 0, depth = 0;  // depth + 1 levels, 2^(depth+1) - 1 nodes a tree
    Activation activation = Activation::gelu_erf;
    TieRule tie = TieRule::zero_goes_left;
    TensorType rows = TensorType::f32;  // of in, out and x: f32, bf16 or s8
    const void* in = nullptr;           // [trees, nodes, hidden]
    const void* out = nullptr;          // [trees, nodes, hidden]
    // s8 only, [trees, nodes]: a value is stored * scale.
    const float* in_scale = nullptr;
    const float* out_scale = nullptr;
    const void* gate = nullptr;         // [trees, nodes, hidden], of a gated forest; else null
    const float* gate_scale = nullptr;  // s8 only, as in_scale
    bool routes_on_gate = false;
    const float* in_bias = nullptr;   // [trees, nodes], or null
    const float* out_bias = nullptr;  // [hidden], or null

    // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): the analyser lets depth wrap to -1
    size_t nodes() const { return (size_t{2} << depth) - 1; }
    size_t levels() const { return depth + 1; }
    bool gated() const { return gate != nullptr; }
};

// Bytes of scratch, 64-byte aligned, for a call on at most `tokens` tokens.
size_t scratch_bytes(const NeuronForest& forest, size_t tokens);

// 8-bit: z is the exact integer product times both scales, plus the bias; the activations of a token, times
// their rows' scales, are rounded to 8 bits with one scale a token and tree before they meet the 8-bit output
// rows; a token with an activation that is infinite or NaN has a NaN output.
// bf16: products are exact, sums float32; activations are rounded to bf16.
using NeuronForestKernel = void (*)(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier
