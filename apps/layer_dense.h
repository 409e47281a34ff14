// A dense feed-forward layer with random weights, as good as the backend makes it: weights packed once, GELU
// fused, the hidden activations in the type of the precision, large batches in chunks of the fastest size.
#pragma once

#include <memory>

#include "apps/huge_memory.h"
#include "apps/layer_tokens.h"
#include "kernels/dense/dense.h"

namespace espalier {

class DenseFfn {
   public:
    // precision: f32, bf16 or s8. Throws Error(unsupported) where backend or processor lack it.
    // matrix: which of the random matrices are its weights; different layers, different numbers.
    DenseFfn(size_t hidden, size_t width, TensorType precision, const DenseBackend& backend, int threads,
             const RandomRows& random, uint64_t matrix, std::pmr::memory_resource* memory);

    // Once, before the first run of so many tokens: times chunks of several sizes over them, keeps the
    // fastest.
    void plan(const Tokens& tokens, float* y);
    void run(const Tokens& tokens, float* y);

    // One token in double precision, from the weights before rounding.
    void reference(const float* x, double* y) const;

    size_t width() const { return width_; }
    size_t weight_bytes() const { return up_->bytes() + down_->bytes(); }
    size_t chunk() const { return chunk_; }
    const char* up_implementation() { return runner_->implementation(*up_, chunk_); }
    const char* down_implementation() { return runner_->implementation(*down_, chunk_); }

    // Bytes that building one takes at its worst, for a batch of `rows`.
    static size_t peak_bytes(size_t hidden, size_t width, TensorType precision, size_t rows);

   private:
    void run_chunks(const Tokens& tokens, float* y, size_t chunk);
    Quantisation calibrate() const;
    float bias(uint64_t which, size_t i) const;

    size_t hidden_, width_;
    TensorType precision_;
    const RandomRows& random_;
    uint64_t matrix_;
    std::pmr::memory_resource* memory_;
    std::unique_ptr<DenseLayer> up_, down_;
    std::unique_ptr<DenseRunner> runner_;
    HugeBlock inner_;
    size_t chunk_ = 0;
};

}  // namespace espalier
