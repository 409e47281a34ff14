// The dense backend of our own kernels: packed panels, one kernel table.
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/parallel.h"
#include "kernels/dense/dense.h"

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
        : DenseLayer(shape), memory_(memory) {
        packed_.inputs = shape.inputs;
        packed_.outputs = shape.outputs;
        const size_t outputs = packed_.panels() * panel_outputs;
        floats_ = outputs * shape.inputs + (bias != nullptr ? outputs : 0);
        data_ = static_cast<float*>(memory_->allocate(floats_ * sizeof(float), 64));
        std::memset(data_, 0, floats_ * sizeof(float));
        for (size_t o = 0; o < shape.outputs; ++o) {
            float* column = data_ + o / panel_outputs * shape.inputs * panel_outputs + o % panel_outputs;
            for (size_t i = 0; i < shape.inputs; ++i)
                column[i * panel_outputs] = weight[o * shape.inputs + i];
        }
        packed_.weight = data_;
        if (bias == nullptr) return;
        std::memcpy(data_ + outputs * shape.inputs, bias, shape.outputs * sizeof(float));
        packed_.bias = data_ + outputs * shape.inputs;
    }
    ~NativeLayer() override { memory_->deallocate(data_, floats_ * sizeof(float), 64); }
    size_t bytes() const override { return floats_ * sizeof(float); }
    const PackedDense& packed() const { return packed_; }

   private:
    std::pmr::memory_resource* memory_;
    size_t floats_ = 0;
    float* data_ = nullptr;
    PackedDense packed_;
};

class NativeRunner final : public DenseRunner {
   public:
    NativeRunner(const KernelTable& kernels, int threads) : kernels_(kernels), threads_(threads) {}

    void run(const DenseLayer& layer, const void* x_rows, void* y_rows, size_t rows) override {
        const auto* x = static_cast<const float*>(x_rows);
        auto* y = static_cast<float*>(y_rows);
        const auto& packed = static_cast<const NativeLayer&>(layer).packed();
        const Activation activation = layer.shape().activation;
        // Threads take rows when there are enough for whole tiles, panels otherwise.
        if (rows >= 24 * static_cast<size_t>(threads_)) {
            parallel_for(threads_, rows, 24, [&](size_t begin, size_t end, int) {
                run_part(packed, activation, x + begin * packed.inputs, end - begin, 0, packed.panels(),
                         y + begin * packed.outputs);
            });
        } else {
            parallel_for(threads_, packed.panels(), 2, [&](size_t begin, size_t end, int) {
                run_part(packed, activation, x, rows, begin, end, y);
            });
        }
    }
    const char* implementation(const DenseLayer&, size_t) override { return name_of(kernels_.isa); }

   private:
    void run_part(const PackedDense& packed, Activation activation, const float* x, size_t rows, size_t first,
                  size_t last, float* y) const {
        kernels_.gemm(packed, x, rows, first, last, y);
        if (activation == Activation::none) return;
        const size_t begin = first * panel_outputs;
        const size_t end = last * panel_outputs < packed.outputs ? last * panel_outputs : packed.outputs;
        for (size_t r = 0; r < rows; ++r)
            kernels_.activate(activation, y + r * packed.outputs + begin, end - begin);
    }

    const KernelTable& kernels_;
    int threads_;
};

class NativeBackend final : public DenseBackend {
   public:
    explicit NativeBackend(const KernelTable& kernels) : kernels_(kernels) {}
    const char* name() const override { return "native"; }
    std::unique_ptr<DenseLayer> prepare(const DenseShape& shape, const float* weight, const float* bias,
                                        std::pmr::memory_resource* memory) const override {
        if (shape.input != TensorType::f32 || shape.output != TensorType::f32)
            throw Error(Status::unsupported, "dense layers of %s to %s: the native backend has f32 alone",
                        name_of(shape.input), name_of(shape.output));
        return std::make_unique<NativeLayer>(shape, weight, bias, memory);
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
