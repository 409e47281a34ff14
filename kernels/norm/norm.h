// LayerNorm (arXiv 1607.06450) and RMSNorm (arXiv 1910.07467) over the last dimension, with the residual
// addition in front of them.
#pragma once

#include <cstddef>

#include "base/types.h"

namespace espalier {

struct NormWeights {
    size_t hidden = 0;
    float epsilon = 0;
    bool rms = false;               // RMSNorm: no mean is taken off
    const float* weight = nullptr;  // [hidden]
    const float* bias = nullptr;    // [hidden], or null
};

// Where rows of y also go as the layer behind the norm multiplies them (kernels/quantize/quantize.h:
// RoundKernel), while they are in the first-level cache.
struct RoundedRows {
    TensorType type = TensorType::f32;  // f32: nowhere; s8: rotated
    std::byte* rows = nullptr;          // [tokens, hidden] of the type
    float* scale = nullptr;             // [tokens], s8 only
};

// y = norm(x + residual), row by row. x, residual (may be null), y: [tokens, hidden] float32, y may be
// either.
using NormKernel = void (*)(const NormWeights& norm, const float* x, const float* residual, float* y,
                            const RoundedRows& rounded, size_t tokens);

}  // namespace espalier
