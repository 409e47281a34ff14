// Dense layers: y = act(x W^T + b), x [rows, inputs], W [outputs, inputs].
//
// Arithmetic is float32, bfloat16 (products of bfloat16, sums, bias and activation float32) or 8-bit (exact
// integer sums; bias and activation float32); x's type chooses. 8-bit x has a scale a row, given with every
// call, or (oneDNN alone) one scale and zero for all, known when the layer is prepared.
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

// How 8-bit values stand for real ones: real = scale * (stored - zero). The zero need not be whole, since it
// ends up in a bias: an unsigned type with a zero spends no codes on values that an activation never gives.
struct Quantisation {
    float scale = 1, zero = 0;
};

struct DenseShape {
    size_t inputs = 0, outputs = 0;
    Activation activation = Activation::none;
    bool bias = false;
    // Of x and of the stored weights: f32, bf16, or s8 and u8. 8-bit weights are s8 with one scale an output.
    TensorType input = TensorType::f32;
    // Of y: f32; bf16, where x is bf16 or has a scale a row; s8 or u8, where x is 8-bit of one scale.
    TensorType output = TensorType::f32;
    bool row_scales = false;  // s8 x with a scale a row
    // Known when the layer is prepared, the same for all rows; only for 8-bit x of one scale, and 8-bit y.
    Quantisation input_quantisation = {}, output_quantisation = {};

    bool is_8bit() const { return input == TensorType::s8 || input == TensorType::u8; }
};

class DenseLayer {
   public:
    explicit DenseLayer(const DenseShape& shape) : shape_(shape) {}
    DenseLayer(const DenseLayer&) = delete;
    DenseLayer& operator=(const DenseLayer&) = delete;
    virtual ~DenseLayer() = default;
    const DenseShape& shape() const { return shape_; }
    virtual size_t bytes() const = 0;                 // of prepared weights
    virtual bool is_native() const { return false; }  // of our own kernels, whatever the backend

   private:
    DenseShape shape_;
};

class DenseRunner {
   public:
    DenseRunner() = default;
    DenseRunner(const DenseRunner&) = delete;
    DenseRunner& operator=(const DenseRunner&) = delete;
    virtual ~DenseRunner() = default;
    // x: [rows, inputs], y: [rows, outputs], contiguous, not overlapping, of the shape's types. Both buffers
    // hold padded_rows(rows) rows: backends may compute on whole blocks; what stands in the extra rows of x
    // is not used for the others, and the extra rows of y are left undefined.
    // x_scale: [rows] where the shape has row_scales, else null.
    virtual void run(const DenseLayer& layer, const void* x, const float* x_scale, void* y, size_t rows) = 0;
    void run(const DenseLayer& layer, const void* x, void* y, size_t rows) {
        run(layer, x, nullptr, y, rows);
    }
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
    // weight: [outputs, inputs], bias: [outputs] or null where shape.bias is false; copied, and rounded to
    // the shape's type. `memory` must outlive the layer. Throws Error(unsupported) that says why where
    // backend, build or processor lack the shape's types.
    virtual std::unique_ptr<DenseLayer> prepare(const DenseShape& shape, const float* weight,
                                                const float* bias,
                                                std::pmr::memory_resource* memory) const = 0;
    // The same for 8-bit weights with a scale a row of x that are packed already (panel_pack.h: pack_bytes;
    // the sizes pack exactly): they, their scales [outputs] and the bias are used where they lie.
    struct PackedWeights {
        const uint32_t* words = nullptr;
        const float *scales = nullptr, *bias = nullptr;
    };
    virtual std::unique_ptr<DenseLayer> prepare_packed(const DenseShape& shape, const PackedWeights& weights,
                                                       std::pmr::memory_resource* memory) const = 0;
    // exact_rows: computes no rows but those asked for, at the price of a primitive for every number of rows.
    virtual std::unique_ptr<DenseRunner> make_runner(int threads, bool exact_rows = false) const = 0;
};

std::unique_ptr<DenseBackend> make_native_backend(Isa isa);
// Throws Error(unsupported) where this build has no oneDNN, where `isa` is scalar, or where oneDNN already
// runs uncapped in this process and `isa` asks for less (its cap can be set only before its first use).
std::unique_ptr<DenseBackend> make_onednn_backend(Isa isa);
bool onednn_compiled_in();

}  // namespace espalier
