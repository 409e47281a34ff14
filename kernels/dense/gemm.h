// Our own dense product y = act(x W^T + b), one panel of packed weights at a time. The native backend's, and
// oneDNN's where that lacks the types: in 8 bits it has no scale a row of x.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"
#include "kernels/dense/panel.h"

namespace espalier {

struct PackedDense {
    size_t inputs = 0, outputs = 0;
    TensorType type = TensorType::f32;    // of weights and x: f32, bf16 or s8
    TensorType output = TensorType::f32;  // of y: f32 or bf16
    Activation activation = Activation::none;
    const uint32_t* weight = nullptr;  // packed matrix, inputs x padded outputs (panel_pack.h)
    const float* scale = nullptr;      // s8 only: [padded outputs], a weight is stored * scale
    const float* bias = nullptr;       // [padded outputs], zeros where there is none

    size_t padded_outputs() const { return (outputs + 15) / 16 * 16; }
    size_t panels() const { return (outputs + panel_columns - 1) / panel_columns; }
};

// Rows of x, contiguous, and which panels of y [rows, outputs] are computed. A row's result depends neither
// on its neighbours nor on how panels are split. s8: sums are exact integers, and
// y = (sum * (x_scale * scale)) + bias before the activation, in one fused multiply-add where there is one.
struct GemmCall {
    const void* x = nullptr;
    const float* x_scale = nullptr;  // s8 only: [rows]
    size_t rows = 0, first_panel = 0, last_panel = 0;
    void* y = nullptr;
};

using GemmKernel = void (*)(const PackedDense& dense, const GemmCall& call);

}  // namespace espalier
