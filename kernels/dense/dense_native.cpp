// The dense backend of our own kernels: packed panels, one kernel table.
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dense/dense.h"
#include "kernels/dense/panel_pack.h"

namespace espalier {

// Small counts are padded little, since every row costs; large ones to whole tiles, so that contexts meet few
// different row counts (oneDNN builds a primitive for each).
size_t padded_rows(size_t rows) {
    const size_t step = rows <= 16 ? 1 : rows <= 64 ? 4 : rows <= 256 ? 8 : rows <= 1024 ? 32 : 128;
    return round_up(rows, step);
}

namespace {

class NativeLayer final : public DenseLayer {
   public:
    NativeLayer(const DenseShape& shape, const float* weight, const float* bias,
                std::pmr::memory_resource* memory)
        : DenseLayer(shape), memory_(memory), packed_(packed_of(shape)) {
        const bool is_8bit = shape.input == TensorType::s8;
        const size_t padded = packed_.padded_outputs(),
                     words = packed_words(shape.input, shape.inputs, padded);
        allocate(words + padded * (is_8bit ? 2 : 1));
        std::memset(data_ + words, 0, (words_ - words) * sizeof(uint32_t));
        auto* bias_data = reinterpret_cast<float*>(data_ + words);
        float* scales = is_8bit ? bias_data + padded : nullptr;
        for (size_t o = 0; o < shape.outputs && is_8bit; ++o)
            scales[o] = row_scale(weight + o * shape.inputs, shape.inputs);
        pack_panels(shape.input, {weight, 1, shape.inputs}, shape.inputs, shape.outputs, padded, scales,
                    nullptr, data_);
        if (bias != nullptr) std::memcpy(bias_data, bias, shape.outputs * sizeof(float));
        packed_.weight = data_;
        packed_.bias = bias_data;
        packed_.scale = scales;
    }
    // Of weights that are packed already, and lie elsewhere.
    NativeLayer(const DenseShape& shape, const DenseBackend::PackedWeights& weights,
                std::pmr::memory_resource* memory)
        : DenseLayer(shape), memory_(memory), packed_(packed_of(shape)) {
        packed_.weight = weights.words;
        packed_.scale = weights.scales;
        packed_.bias = weights.bias;
        if (weights.bias != nullptr) return;
        allocate(shape.outputs);
        std::memset(data_, 0, words_ * sizeof(uint32_t));
        packed_.bias = reinterpret_cast<const float*>(data_);
    }
    ~NativeLayer() override {
        if (data_ != nullptr) memory_->deallocate(data_, words_ * sizeof(uint32_t), 64);
    }
    size_t bytes() const override { return words_ * sizeof(uint32_t); }
    bool is_native() const override { return true; }
    const PackedDense& packed() const { return packed_; }

   private:
    static PackedDense packed_of(const DenseShape& shape) {
        PackedDense packed;
        packed.inputs = shape.inputs;
        packed.outputs = shape.outputs;
        packed.type = shape.input;
        packed.output = shape.output;
        packed.activation = shape.activation;
        return packed;
    }
    void allocate(size_t words) {
        data_ = static_cast<uint32_t*>(memory_->allocate(words * sizeof(uint32_t), 64));
        words_ = words;
    }

    std::pmr::memory_resource* memory_;
    size_t words_ = 0;
    uint32_t* data_ = nullptr;  // of this layer's own: packed weights, the bias, the scales
    PackedDense packed_;
};

class NativeRunner final : public DenseRunner {
   public:
    NativeRunner(const KernelTable& kernels, int threads) : kernels_(kernels), threads_(threads) {}

    void run(const DenseLayer& layer, const void* x, const float* x_scale, void* y, size_t rows) override {
        const auto& packed = static_cast<const NativeLayer&>(layer).packed();
        const GemmKernel gemm = kernels_.gemm(packed.type);
        // Threads take rows when there are enough for whole tiles, panels otherwise.
        if (rows >= 24 * static_cast<size_t>(threads_)) {
            parallel_for(threads_, rows, 24, [&](size_t begin, size_t end, int) {
                const auto row = [&](auto* base, size_t values, TensorType type) {
                    return base + begin * values * bytes_of(type);
                };
                gemm(packed, {row(static_cast<const std::byte*>(x), packed.inputs, packed.type),
                              x_scale != nullptr ? x_scale + begin : nullptr, end - begin, 0, packed.panels(),
                              row(static_cast<std::byte*>(y), packed.outputs, packed.output)});
            });
        } else {
            parallel_for(threads_, packed.panels(), 2, [&](size_t begin, size_t end, int) {
                gemm(packed, {x, x_scale, rows, begin, end, y});
            });
        }
    }
    const char* implementation(const DenseLayer& layer, size_t) override {
        switch (layer.shape().input) {
            case TensorType::bf16:
                return kernels_.bf16_products;
            case TensorType::s8:
                return kernels_.s8_products;
            default:
                return name_of(kernels_.isa);
        }
    }

   private:
    const KernelTable& kernels_;
    int threads_;
};

class NativeBackend final : public DenseBackend {
   public:
    explicit NativeBackend(const KernelTable& kernels) : kernels_(kernels) {}
    const char* name() const override { return "native"; }
    std::unique_ptr<DenseLayer> prepare(const DenseShape& shape, const float* weight, const float* bias,
                                        std::pmr::memory_resource* memory) const override {
        const bool runs =
            (shape.input == TensorType::f32 && shape.output == TensorType::f32) ||
            ((shape.input == TensorType::bf16 || (shape.input == TensorType::s8 && shape.row_scales)) &&
             (shape.output == TensorType::f32 || shape.output == TensorType::bf16));
        if (!runs)
            throw Error(
                Status::unsupported,
                "dense layers of %s to %s: the native backend has f32 to f32, and bf16 and s8 with a scale a "
                "row to f32 and bf16",
                name_of(shape.input), name_of(shape.output));
        return std::make_unique<NativeLayer>(shape, weight, bias, memory);
    }
    std::unique_ptr<DenseLayer> prepare_packed(const DenseShape& shape, const PackedWeights& weights,
                                               std::pmr::memory_resource* memory) const override {
        if (shape.input != TensorType::s8 || !shape.row_scales ||
            !packs_exactly(shape.input, shape.inputs, shape.outputs))
            throw Error(Status::unsupported,
                        "packed weights: expected s8 with a scale a row of inputs and outputs that are "
                        "multiples of 4 and "
                        "16, found %s of %zu and %zu",
                        name_of(shape.input), shape.inputs, shape.outputs);
        return std::make_unique<NativeLayer>(shape, weights, memory);
    }
    std::unique_ptr<DenseRunner> make_runner(int threads, bool) const override {
        return std::make_unique<NativeRunner>(kernels_, threads);
    }

   private:
    const KernelTable& kernels_;
};

}  // namespace

std::unique_ptr<DenseBackend> make_native_backend(Isa isa) {
    return std::make_unique<NativeBackend>(kernel_table(isa));
}

}  // namespace espalier
