// Dense layers on a CUDA device: y = act(x W^T + b), through cuBLASLt, which is loaded when the first layer
// is made, so that a program starts where it is not installed. float32 layers multiply in float32 (no TF32).
#pragma once

#include <memory>

#include "base/types.h"
#include "kernels/cuda/device.h"

namespace espalier::cuda {

struct DenseShape {
    size_t inputs = 0, outputs = 0;
    TensorType input = TensorType::f32;   // of x and W: f32 or bf16
    TensorType output = TensorType::f32;  // of y, and of the bias: f32 or bf16
    Activation activation = Activation::none;
    bool tf32 = false;  // float32 products may be of 10 bits: for comparisons only
};

struct DenseCall {
    const void* weight = nullptr;  // [outputs, inputs], 16-byte aligned
    const void* bias = nullptr;    // [outputs] of the output's type, or null
    const void* x = nullptr;       // [rows, inputs]
    void* y = nullptr;             // [rows, outputs]
    size_t rows = 0;
    cudaStream_t stream = nullptr;
};

// Belongs to one context: its plans and its workspace serve one call at a time.
class DenseRunner {
   public:
    DenseRunner();  // throws Error(unsupported) where the library is not to be had
    DenseRunner(const DenseRunner&) = delete;
    DenseRunner& operator=(const DenseRunner&) = delete;
    ~DenseRunner();
    // The first call of a shape and number of rows asks the library for an algorithm.
    void run(const DenseShape& shape, const DenseCall& call);
    // Times every algorithm that the library proposes (at most `most`) on this call, and keeps the fastest
    // for calls of the same shape and number of rows. The answer: how many ran.
    int tune(const DenseShape& shape, const DenseCall& call, int most);

   private:
    class Plans;
    std::unique_ptr<Plans> plans_;
};

}  // namespace espalier::cuda
