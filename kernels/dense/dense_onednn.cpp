// The dense backend of oneDNN: inner products with prepacked weights and fused activations.
#include "base/error.h"
#include "kernels/dense/dense.h"

#if defined(ESPALIER_ONEDNN)

#include <array>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/dense/onednn_layer.h"

namespace espalier {
namespace {

using dnnl::memory;

// oneDNN's errors carry a status and a short text; ours say which layer.
template <typename Function>
auto translated(const char* what, const DenseShape& shape, const Function& function) {
    try {
        return function();
    } catch (const dnnl::error& error) {
        throw Error(error.status == dnnl_out_of_memory   ? Status::out_of_memory
                    : error.status == dnnl_unimplemented ? Status::unsupported
                                                         : Status::internal,
                    "oneDNN: %s of a dense layer %zu -> %zu failed: %s (status %d)", what, shape.inputs,
                    shape.outputs, error.what(), static_cast<int>(error.status));
    }
}

// One primitive for one shape of layer and number of rows, with the memory objects that a call only
// re-points.
struct Primitive {
    dnnl::inner_product_forward run;
    memory x, y, scratch;
    std::string implementation;
};

class OnednnRunner final : public DenseRunner {
   public:
    OnednnRunner(const dnnl::engine& engine, std::unique_ptr<DenseRunner> native, int threads,
                 bool exact_rows)
        : engine_(engine),
          stream_(engine),
          native_(std::move(native)),
          threads_(threads),
          exact_rows_(exact_rows) {}

    void run(const DenseLayer& layer, const void* x, const float* x_scale, void* y, size_t rows) override {
        if (layer.is_native()) return native_->run(layer, x, x_scale, y, rows);
        Primitive& primitive = find(layer, computed_rows(rows));
        const auto& prepared = static_cast<const onednn::Layer&>(layer);
        const ThreadCount threads(threads_);
        primitive.x.set_data_handle(const_cast<void*>(x));
        primitive.y.set_data_handle(y);
        primitive.scratch.set_data_handle(scratch_.data());
        std::array<dnnl_exec_arg_t, 6> arguments{{{DNNL_ARG_SRC, primitive.x.get()},
                                                  {DNNL_ARG_WEIGHTS, prepared.weights().get()},
                                                  {DNNL_ARG_DST, primitive.y.get()},
                                                  {DNNL_ARG_SCRATCHPAD, primitive.scratch.get()}}};
        int count = 4;
        if (prepared.has_bias())
            arguments[static_cast<size_t>(count++)] = {DNNL_ARG_BIAS, prepared.bias().get()};
#if DNNL_VERSION_MAJOR >= 3
        if (layer.shape().is_8bit())
            arguments[static_cast<size_t>(count++)] = {DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS,
                                                       prepared.scales().get()};
#endif
        const dnnl_status_t status =
            dnnl_primitive_execute(primitive.run.get(), stream_.get(), count, arguments.data());
        if (status != dnnl_success)
            throw Error(Status::internal, "oneDNN: a dense layer %zu -> %zu failed with status %d",
                        layer.shape().inputs, layer.shape().outputs, static_cast<int>(status));
    }
    const char* implementation(const DenseLayer& layer, size_t rows) override {
        if (layer.is_native()) return native_->implementation(layer, rows);
        return find(layer, computed_rows(rows)).implementation.c_str();
    }

   private:
    // inputs, outputs, activation, bias, types, the layer's number, rows
    using Key = std::array<size_t, 8>;

    size_t computed_rows(size_t rows) const {
        return exact_rows_ ? rows : padded_rows(rows);
    }

    Primitive& find(const DenseLayer& layer, size_t rows) {
        const DenseShape& shape = layer.shape();
        const Key key{shape.inputs,
                      shape.outputs,
                      static_cast<size_t>(shape.activation),
                      shape.bias ? size_t{1} : 0,
                      static_cast<size_t>(shape.input),
                      static_cast<size_t>(shape.output),
                      static_cast<const onednn::Layer&>(layer).number(),
                      rows};
        const auto place = primitives_.find(key);
        if (place != primitives_.end()) return place->second;
        // Mixed lengths meet ever new row counts; a few hundred primitives are a few MB. Starting over is
        // simpler than a list by age, and oneDNN's own cache softens it.
        if (primitives_.size() >= 512) primitives_.clear();
        const ThreadCount threads(threads_);  // a primitive is built for the thread count of its making
        Primitive made = translated("making a primitive", shape, [&] { return make(layer, rows); });
        return primitives_.emplace(key, std::move(made)).first->second;
    }

    Primitive make(const DenseLayer& layer, size_t rows) {
        const auto& prepared = static_cast<const onednn::Layer&>(layer);
        const auto pd = prepared.describe(static_cast<memory::dim>(rows), engine_);
        Primitive made;
        made.run = dnnl::inner_product_forward(pd);
        made.implementation = pd.impl_info_str();
        made.x = memory(pd.src_desc(), engine_, nullptr);
        made.y = memory(pd.dst_desc(), engine_, nullptr);
        made.scratch = memory(pd.scratchpad_desc(), engine_, nullptr);
        // One scratchpad for all: calls of a runner never overlap.
        const size_t needed = onednn::lines(pd.scratchpad_desc().get_size());
        if (needed > scratch_.size()) scratch_.resize(needed);
        return made;
    }

    dnnl::engine engine_;
    dnnl::stream stream_;
    std::unique_ptr<DenseRunner> native_;  // for what oneDNN lacks
    int threads_;
    bool exact_rows_;
    std::map<Key, Primitive> primitives_;
    std::vector<onednn::Line> scratch_;
};

class OnednnBackend final : public DenseBackend {
   public:
    explicit OnednnBackend(Isa isa) : isa_(isa), native_(make_native_backend(isa)) {}
    const char* name() const override { return "onednn"; }
    std::unique_ptr<DenseLayer> prepare(const DenseShape& shape, const float* weight, const float* bias,
                                        std::pmr::memory_resource* memory) const override {
        // oneDNN 2 has no scale a row of x, and bfloat16 only where the processor has it.
        const bool narrow = shape.input == TensorType::bf16 && (isa_ != Isa::avx512 || !cpu_has_bf16());
        if (shape.row_scales || narrow) return native_->prepare(shape, weight, bias, memory);
        if (shape.input != TensorType::f32 && isa_ != Isa::avx512)
            throw Error(Status::unsupported, "dense layers of %s to %s: oneDNN has nothing fast for %s",
                        name_of(shape.input), name_of(shape.output), name_of(isa_));
        return translated("packing", shape, [&] {
            return std::make_unique<onednn::Layer>(shape, weight, bias, engine_, memory);
        });
    }
    std::unique_ptr<DenseLayer> prepare_packed(const DenseShape& shape, const PackedWeights& weights,
                                               std::pmr::memory_resource* memory) const override {
        return native_->prepare_packed(shape, weights, memory);
    }
    std::unique_ptr<DenseRunner> make_runner(int threads, bool exact_rows) const override {
        return std::make_unique<OnednnRunner>(engine_, native_->make_runner(threads, exact_rows), threads,
                                              exact_rows);
    }

   private:
    Isa isa_;
    std::unique_ptr<DenseBackend> native_;
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
};

// Caps oneDNN at the instruction set. The cap is the process's, and holds from oneDNN's first use on.
void cap_isa(Isa isa) {
    static std::mutex mutex;
    static bool settled = false;
    static Isa settled_isa = Isa::scalar;
    const std::lock_guard lock(mutex);
    if (!settled) {
#if DNNL_VERSION_MAJOR >= 3
        constexpr auto all_there_is = dnnl_cpu_isa_default;
#else
        constexpr auto all_there_is = dnnl_cpu_isa_all;
#endif
        const auto cap = isa == Isa::avx2 ? dnnl_cpu_isa_avx2 : all_there_is;
        if (isa != Isa::neon && dnnl_set_max_cpu_isa(cap) != dnnl_success && isa != best_isa())
            throw Error(
                Status::unsupported,
                "oneDNN runs uncapped in this process: expected the backend native for instruction set %s",
                name_of(isa));
        settled = true;
        settled_isa = isa;
        return;
    }
    if (isa != settled_isa)
        throw Error(
            Status::unsupported,
            "oneDNN was started with instruction set %s in this process: expected the backend native for %s",
            name_of(settled_isa), name_of(isa));
}

}  // namespace

bool onednn_compiled_in() {
    return true;
}

std::unique_ptr<DenseBackend> make_onednn_backend(Isa isa) {
    if (isa == Isa::scalar)
        throw Error(Status::unsupported,
                    "oneDNN has no scalar kernels: expected the backend native for instruction set scalar");
    cap_isa(isa);
    try {
        return std::make_unique<OnednnBackend>(isa);
    } catch (const dnnl::error& error) {
        throw Error(Status::internal, "oneDNN: no CPU engine: %s", error.what());
    }
}

}  // namespace espalier

#else

namespace espalier {

bool onednn_compiled_in() {
    return false;
}

std::unique_ptr<DenseBackend> make_onednn_backend(Isa) {
    throw Error(Status::unsupported, "backend onednn: this build has none; expected native");
}

}  // namespace espalier

#endif
