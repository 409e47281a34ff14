// Dense layers: y = act(x W^T + b), x [rows, inputs], W [outputs, inputs], float32.
//
// A DenseBackend is chosen once a model (oneDNN, or our own kernels) and prepares weights for it; a
// DenseRunner belongs to one context and thread and runs prepared layers. Layers are const once prepared.
#pragma once

#include <cstddef>
#include <memory>
#include <memory_resource>

#include "base/types.h"
#include "kernels/cpu/isa.h"

namespace espalier {

struct DenseShape {
    size_t inputs = 0, outputs = 0;
    Activation activation = Activation::none;
    bool bias = false;
};

class DenseLayer {
   public:
    explicit DenseLayer(const DenseShape& shape) : shape_(shape) {}
    DenseLayer(const DenseLayer&) = delete;
    DenseLayer& operator=(const DenseLayer&) = delete;
    virtual ~DenseLayer() = default;
    const DenseShape& shape() const { return shape_; }
    virtual size_t bytes() const = 0;  // of prepared weights

   private:
    DenseShape shape_;
};

class DenseRunner {
   public:
    DenseRunner() = default;
    DenseRunner(const DenseRunner&) = delete;
    DenseRunner& operator=(const DenseRunner&) = delete;
    virtual ~DenseRunner() = default;
    // x: [rows, inputs], y: [rows, outputs], contiguous, not overlapping. Both buffers must hold
    // padded_rows(rows) rows: backends may compute on whole blocks; what stands in the extra rows of x is
    // not used for the others, and the extra rows of y are left undefined.
    virtual void run(const DenseLayer& layer, const float* x, float* y, size_t rows) = 0;
    // Which implementation `run` takes for this layer and number of rows, for inspect and bench.
    virtual const char* implementation(const DenseLayer& layer, size_t rows) = 0;
};

// Rows that buffers for `rows` rows must hold, in every backend.
size_t padded_rows(size_t rows);

class DenseBackend {
   public:
    DenseBackend() = default;
    DenseBackend(const DenseBackend&) = delete;
    DenseBackend& operator=(const DenseBackend&) = delete;
    virtual ~DenseBackend() = default;
    virtual const char* name() const = 0;
    // weight: [outputs, inputs], bias: [outputs] or null where shape.bias is false; copied. `memory` must
    // outlive the layer.
    virtual std::unique_ptr<DenseLayer> prepare(const DenseShape& shape, const float* weight,
                                                const float* bias,
                                                std::pmr::memory_resource* memory) const = 0;
    virtual std::unique_ptr<DenseRunner> make_runner(int threads) const = 0;
};

std::unique_ptr<DenseBackend> make_native_backend(Isa isa);
// Throws Error(unsupported) where this build has no oneDNN, where `isa` is scalar, or where oneDNN already
// runs uncapped in this process and `isa` asks for less (its cap can be set only before its first use).
std::unique_ptr<DenseBackend> make_onednn_backend(Isa isa);
bool onednn_compiled_in();

}  // namespace espalier
