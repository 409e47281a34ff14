// What happens to rows of hidden states between products: embedding, norms, sums, activations, pooling.
// hidden is a multiple of 8, at most 4,096 for norms. All launches go to a stream and return at once.
#pragma once

#include "base/types.h"
#include "kernels/cuda/device.h"

namespace espalier::cuda {

// x = words[id] + positions[place in its sequence] + types[type]; float32, positions and types may be null.
struct Embeddings {
    const float *words = nullptr, *positions = nullptr, *types = nullptr;
    size_t hidden = 0;
};
struct EmbeddedTokens {
    const int32_t* ids = nullptr;
    const int32_t* places = nullptr;
    const int32_t* types = nullptr;
    size_t tokens = 0;
};
void embed(const Embeddings& embeddings, const EmbeddedTokens& tokens, float* x, cudaStream_t stream);

// y = norm(x + residual); y may be x or residual, and so may `sum`, where x + residual goes too. As
// kernels/norm.
struct Norm {
    size_t hidden = 0;
    float epsilon = 0;
    bool rms = false;
    const float *weight = nullptr, *bias = nullptr;
};
struct NormCall {
    const void* x = nullptr;  // float32, or bfloat16
    bool narrow = false;
    const float* residual = nullptr;  // or null
    float* y = nullptr;
    float* sum = nullptr;     // or null
    void* rounded = nullptr;  // y in bfloat16 too, or null
    size_t tokens = 0;
    bool early = false;  // early.cuh
};
void normalise(const Norm& norm, const NormCall& call, cudaStream_t stream);

// y += x.
void add(const float* x, float* y, size_t count, cudaStream_t stream);
// sum += x - before.
void add_difference(const float* x, const float* before, float* sum, size_t count, cudaStream_t stream);
void round(const float* x, void* bfloats, size_t count, cudaStream_t stream);
// In place, float32 or bfloat16; count: a multiple of 8.
void activate(Activation activation, TensorType type, void* values, size_t count, cudaStream_t stream);

// pooled [sequences, hidden]: the mean over a sequence's tokens, its first, or its last.
enum class PooledToken { mean, first, last };
void pool(PooledToken which, const float* x, const uint32_t* offsets, size_t sequences, size_t hidden,
          float* pooled, cudaStream_t stream);

}  // namespace espalier::cuda
