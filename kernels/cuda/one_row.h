// A dense layer of one row, and gates. One token after another is what decoders mostly do: then a layer takes
// as long as its weights take to be read, once, and nothing is left to share between rows.
#pragma once

#include "base/types.h"
#include "kernels/cuda/dense.h"

namespace espalier::cuda {

struct OneRow {
    // `weight` and bias have the gates' rows in front of as many others, shape.outputs counts both, and y,
    // half as wide, is act(gate) * other.
    bool gated = false;
    bool early = false;  // early.cuh
};
// y = act(x W^T + b) of one row, in float32 sums; inputs: a multiple of 8.
void multiply_row(const DenseShape& shape, const DenseCall& call, const OneRow& how);

// both: [rows, 2 width], gates in front; y = act(gate) * other, [rows, width]. Both of this type, float32 or
// bfloat16; width: a multiple of 4.
struct Gates {
    Activation activation = Activation::silu;
    TensorType type = TensorType::f32;
    const void* both = nullptr;
    size_t rows = 0, width = 0;
    void* y = nullptr;
};
void multiply_gates(const Gates& gates, cudaStream_t stream);

}  // namespace espalier::cuda
