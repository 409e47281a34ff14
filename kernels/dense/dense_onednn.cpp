// The dense backend of oneDNN: inner products with prepacked weights and fused activations. The blocked
// weight format that oneDNN picks does not depend on the number of rows (tests/unit/dense_test.cpp checks
// that no row count falls to another implementation), so a layer is packed once and serves every batch.
#include "base/error.h"
#include "kernels/dense/dense.h"

#if defined(ESPALIER_ONEDNN)

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace espalier {
namespace {

using dnnl::memory;

// The row count that the packed format is asked for with. Any works: see above.
constexpr memory::dim packing_rows = 64;

memory::desc matrix(memory::dim rows, memory::dim columns, memory::format_tag tag) {
    return {{rows, columns}, memory::data_type::f32, tag};
}

dnnl::primitive_attr attributes(Activation activation) {
    using dnnl::algorithm;
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops ops;
    switch (activation) {
        case Activation::none:
            break;
        case Activation::gelu_erf:
            ops.append_eltwise(1.0F, algorithm::eltwise_gelu_erf, 0, 0);
            break;
        case Activation::gelu_tanh:
            ops.append_eltwise(1.0F, algorithm::eltwise_gelu_tanh, 0, 0);
            break;
        case Activation::relu:
            ops.append_eltwise(1.0F, algorithm::eltwise_relu, 0, 0);
            break;
        case Activation::silu:
            ops.append_eltwise(1.0F, algorithm::eltwise_swish, 1.0F, 0);
            break;
        case Activation::tanh:
            ops.append_eltwise(1.0F, algorithm::eltwise_tanh, 0, 0);
            break;
    }
    attr.set_post_ops(ops);
    return attr;
}

dnnl::inner_product_forward::primitive_desc describe(const DenseShape& shape, memory::dim rows,
                                                     const memory::desc& weights,
                                                     const dnnl::engine& engine) {
    const auto inputs = static_cast<memory::dim>(shape.inputs),
               outputs = static_cast<memory::dim>(shape.outputs);
    const auto x = matrix(rows, inputs, memory::format_tag::ab),
               y = matrix(rows, outputs, memory::format_tag::ab);
    const auto attr = attributes(shape.activation);
    const memory::desc bias({outputs}, memory::data_type::f32, memory::format_tag::a);
#if DNNL_VERSION_MAJOR >= 3
    if (shape.bias) return {engine, dnnl::prop_kind::forward_inference, x, weights, bias, y, attr};
    return {engine, dnnl::prop_kind::forward_inference, x, weights, y, attr};
#else
    using Description = dnnl::inner_product_forward::desc;
    if (shape.bias)
        return {Description(dnnl::prop_kind::forward_inference, x, weights, bias, y), attr, engine};
    return {Description(dnnl::prop_kind::forward_inference, x, weights, y), attr, engine};
#endif
}

// oneDNN's errors carry a status and a short text; ours say which layer.
template <typename Function>
auto translated(const char* what, const DenseShape& shape, const Function& function) {
    try {
        return function();
    } catch (const dnnl::error& error) {
        throw Error(error.status == dnnl_out_of_memory ? Status::out_of_memory : Status::internal,
                    "oneDNN: %s of a dense layer %zu -> %zu failed: %s (status %d)", what, shape.inputs,
                    shape.outputs, error.what(), static_cast<int>(error.status));
    }
}

struct alignas(64) Line {
    std::byte bytes[64];
};

class OnednnLayer final : public DenseLayer {
   public:
    OnednnLayer(const DenseShape& shape, const float* weight, const float* bias, const dnnl::engine& engine,
                std::pmr::memory_resource* resource)
        : DenseLayer(shape), data_(resource) {
        const auto inputs = static_cast<memory::dim>(shape.inputs),
                   outputs = static_cast<memory::dim>(shape.outputs);
        const auto pd =
            describe(shape, packing_rows, matrix(outputs, inputs, memory::format_tag::any), engine);
        description_ = pd.weights_desc();
        const size_t weight_bytes = description_.get_size();
        data_.resize((weight_bytes + shape.outputs * sizeof(float) + sizeof(Line) - 1) / sizeof(Line));
        auto* bias_data = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(data_.data()) + weight_bytes);
        if (bias != nullptr) std::memcpy(bias_data, bias, shape.outputs * sizeof(float));
        // oneDNN takes a pointer to non-const and only reads it.
        const memory source(matrix(outputs, inputs, memory::format_tag::ab), engine,
                            const_cast<float*>(weight));
        weights_ = memory(description_, engine, data_.data());
        bias_ = memory({{outputs}, memory::data_type::f32, memory::format_tag::a}, engine, bias_data);
        dnnl::stream stream(engine);
        dnnl::reorder(source, weights_).execute(stream, {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, weights_}});
        stream.wait();
    }
    size_t bytes() const override { return data_.size() * sizeof(Line); }
    const memory::desc& description() const { return description_; }
    const memory& weights() const { return weights_; }
    const memory& bias() const { return bias_; }

   private:
    std::pmr::vector<Line> data_;  // packed weights, then the bias
    memory::desc description_;
    memory weights_, bias_;
};

// One primitive for one shape of layer and number of rows, with the memory objects that a call only
// re-points.
struct Primitive {
    dnnl::inner_product_forward run;
    memory x, y, scratch;
    std::string implementation;
};

class OnednnRunner final : public DenseRunner {
   public:
    OnednnRunner(const dnnl::engine& engine, int threads)
        : engine_(engine), stream_(engine), threads_(threads) {}

    void run(const DenseLayer& layer, const float* x, float* y, size_t rows) override {
        Primitive& primitive = find(layer, padded_rows(rows));
        const auto& prepared = static_cast<const OnednnLayer&>(layer);
        const ThreadCount threads(threads_);
        primitive.x.set_data_handle(const_cast<float*>(x));
        primitive.y.set_data_handle(y);
        primitive.scratch.set_data_handle(scratch_.data());
        const std::array<dnnl_exec_arg_t, 5> arguments{{{DNNL_ARG_SRC, primitive.x.get()},
                                                        {DNNL_ARG_WEIGHTS, prepared.weights().get()},
                                                        {DNNL_ARG_DST, primitive.y.get()},
                                                        {DNNL_ARG_SCRATCHPAD, primitive.scratch.get()},
                                                        {DNNL_ARG_BIAS, prepared.bias().get()}}};
        const int count = layer.shape().bias ? 5 : 4;
        const dnnl_status_t status =
            dnnl_primitive_execute(primitive.run.get(), stream_.get(), count, arguments.data());
        if (status != dnnl_success)
            throw Error(Status::internal, "oneDNN: a dense layer %zu -> %zu failed with status %d",
                        layer.shape().inputs, layer.shape().outputs, static_cast<int>(status));
    }
    const char* implementation(const DenseLayer& layer, size_t rows) override {
        return find(layer, padded_rows(rows)).implementation.c_str();
    }

   private:
    // inputs, outputs, activation, bias, rows
    using Key = std::array<size_t, 5>;

    Primitive& find(const DenseLayer& layer, size_t rows) {
        const DenseShape& shape = layer.shape();
        const Key key{shape.inputs, shape.outputs, static_cast<size_t>(shape.activation),
                      shape.bias ? size_t{1} : 0, rows};
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
        const DenseShape& shape = layer.shape();
        const auto& prepared = static_cast<const OnednnLayer&>(layer);
        const auto pd = describe(shape, static_cast<memory::dim>(rows), prepared.description(), engine_);
        Primitive made;
        made.run = dnnl::inner_product_forward(pd);
        made.implementation = pd.impl_info_str();
        made.x = memory(pd.src_desc(), engine_, nullptr);
        made.y = memory(pd.dst_desc(), engine_, nullptr);
        made.scratch = memory(pd.scratchpad_desc(), engine_, nullptr);
        // One scratchpad for all: calls of a runner never overlap.
        const size_t lines = (pd.scratchpad_desc().get_size() + sizeof(Line) - 1) / sizeof(Line);
        if (lines > scratch_.size()) scratch_.resize(lines);
        return made;
    }

    dnnl::engine engine_;
    dnnl::stream stream_;
    int threads_;
    std::map<Key, Primitive> primitives_;
    std::vector<Line> scratch_;
};

class OnednnBackend final : public DenseBackend {
   public:
    const char* name() const override { return "onednn"; }
    std::unique_ptr<DenseLayer> prepare(const DenseShape& shape, const float* weight, const float* bias,
                                        std::pmr::memory_resource* memory) const override {
        return translated("packing", shape, [&] {
            return std::make_unique<OnednnLayer>(shape, weight, bias, engine_, memory);
        });
    }
    std::unique_ptr<DenseRunner> make_runner(int threads) const override {
        return std::make_unique<OnednnRunner>(engine_, threads);
    }

   private:
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
};

// Caps oneDNN at the instruction set. The cap is the process's, and holds from oneDNN's first use on.
void cap_isa(Isa isa) {
    static std::mutex mutex;
    static bool settled = false;
    static Isa settled_isa = Isa::scalar;
    const std::lock_guard lock(mutex);
    if (!settled) {
        // avx512_core_amx is oneDNN's name for "all there is"; a cap below it is asked for by name.
        const auto cap = isa == Isa::avx2 ? dnnl_cpu_isa_avx2 : dnnl_cpu_isa_all;
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
        return std::make_unique<OnednnBackend>();
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
