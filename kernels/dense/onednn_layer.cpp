// Packing for oneDNN. The blocked weight format that oneDNN picks does not depend on the number of rows
// (tests/kernels/dense_onednn_test.cpp checks that no row count falls to another implementation), so a layer
// is packed once and serves every batch.
#if defined(ESPALIER_ONEDNN)

#include "kernels/dense/onednn_layer.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "kernels/cpu/parallel.h"
#include "kernels/quantize/quantize.h"

namespace espalier::onednn {
namespace {

using dnnl::memory;

// The row count that the packed format is asked for with. Any works: see above.
constexpr memory::dim packing_rows = 64;

memory::data_type data_type(TensorType type) {
    switch (type) {
        case TensorType::bf16:
            return memory::data_type::bf16;
        case TensorType::s8:
            return memory::data_type::s8;
        case TensorType::u8:
            return memory::data_type::u8;
        default:
            return memory::data_type::f32;
    }
}

memory::data_type weight_type(const DenseShape& shape) {
    return shape.is_8bit() ? memory::data_type::s8 : data_type(shape.input);
}

memory::desc matrix(size_t rows, size_t columns, memory::data_type type, memory::format_tag tag) {
    return {{static_cast<memory::dim>(rows), static_cast<memory::dim>(columns)}, type, tag};
}

memory::desc vector_of(size_t count) {
    return {{static_cast<memory::dim>(count)}, memory::data_type::f32, memory::format_tag::a};
}

// y = quantised(act(scales * (x W^T) + bias)).
dnnl::primitive_attr attributes(const DenseShape& shape, [[maybe_unused]] const float* scales) {
    using dnnl::algorithm;
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (shape.is_8bit()) {
#if DNNL_VERSION_MAJOR >= 3
        attr.set_scales_mask(DNNL_ARG_WEIGHTS, 1 << 0);
#else
        attr.set_output_scales(1 << 1, std::vector<float>(scales, scales + shape.outputs));
#endif
    }
    dnnl::post_ops ops;
    const auto append = [&](algorithm what, float alpha, float beta) {
#if DNNL_VERSION_MAJOR >= 3
        ops.append_eltwise(what, alpha, beta);
#else
        ops.append_eltwise(1.0F, what, alpha, beta);
#endif
    };
    switch (shape.activation) {
        case Activation::none:
            break;
        case Activation::gelu_erf:
            append(algorithm::eltwise_gelu_erf, 0, 0);
            break;
        case Activation::gelu_tanh:
            append(algorithm::eltwise_gelu_tanh, 0, 0);
            break;
        case Activation::relu:
            append(algorithm::eltwise_relu, 0, 0);
            break;
        case Activation::silu:
            append(algorithm::eltwise_swish, 1.0F, 0);
            break;
        case Activation::tanh:
            append(algorithm::eltwise_tanh, 0, 0);
            break;
    }
    // Stored as 8 bits: oneDNN rounds to nearest even and saturates.
    if (shape.output == TensorType::s8 || shape.output == TensorType::u8)
        append(algorithm::eltwise_linear, 1 / shape.output_quantisation.scale,
               shape.output_quantisation.zero);
    attr.set_post_ops(ops);
    return attr;
}

dnnl::inner_product_forward::primitive_desc description_of(const DenseShape& shape, bool has_bias,
                                                           memory::dim rows, const memory::desc& weights,
                                                           const float* scales, const dnnl::engine& engine) {
    const auto x = matrix(static_cast<size_t>(rows), shape.inputs, data_type(shape.input),
                          memory::format_tag::ab),
               y = matrix(static_cast<size_t>(rows), shape.outputs, data_type(shape.output),
                          memory::format_tag::ab);
    const auto attr = attributes(shape, scales);
    const memory::desc bias = vector_of(shape.outputs);
#if DNNL_VERSION_MAJOR >= 3
    if (has_bias) return {engine, dnnl::prop_kind::forward_inference, x, weights, bias, y, attr};
    return {engine, dnnl::prop_kind::forward_inference, x, weights, y, attr};
#else
    using Description = dnnl::inner_product_forward::desc;
    if (has_bias) return {Description(dnnl::prop_kind::forward_inference, x, weights, bias, y), attr, engine};
    return {Description(dnnl::prop_kind::forward_inference, x, weights, y), attr, engine};
#endif
}

void check_types(const DenseShape& shape) {
    const auto refuse = [&](const char* why) {
        throw Error(Status::unsupported, "dense layers of %s to %s: %s", name_of(shape.input),
                    name_of(shape.output), why);
    };
    const bool narrow_output = shape.output == TensorType::s8 || shape.output == TensorType::u8;
    if (shape.input == TensorType::f32) {
        if (shape.output != TensorType::f32) refuse("f32 gives f32 alone");
    } else if (shape.input == TensorType::bf16) {
        if (shape.output != TensorType::f32 && shape.output != TensorType::bf16)
            refuse("bf16 gives f32 or bf16 alone");
        if (!cpu_has_bf16()) refuse("this processor has no bfloat16 products (AVX512_BF16)");
    } else if (shape.is_8bit()) {
        if (shape.output != TensorType::f32 && !narrow_output) refuse("8-bit gives f32, s8 or u8 alone");
        if (!cpu_has_vnni()) refuse("this processor has no 8-bit products (AVX512_VNNI)");
    } else {
        refuse("x is f32, bf16, s8 or u8");
    }
}

}  // namespace

Layer::Layer(const DenseShape& shape, const float* weight, const float* bias, const dnnl::engine& engine,
             std::pmr::memory_resource* resource)
    : DenseLayer(shape),
      has_bias_(shape.bias || (shape.is_8bit() && shape.input_quantisation.zero != 0)),
      data_(resource) {
    check_types(shape);
    // The scales are not known yet, and the format does not depend on them.
    const std::vector<float> ones(shape.is_8bit() ? shape.outputs : 0, 1.0F);
    const auto pd =
        description_of(shape, has_bias_, packing_rows,
                       matrix(shape.outputs, shape.inputs, weight_type(shape), memory::format_tag::any),
                       ones.data(), engine);
    if (shape.input != TensorType::f32 && std::string_view(pd.impl_info_str()).find("ref") == 0)
        throw Error(Status::unsupported, "dense layers of %s to %s: oneDNN has a reference loop alone here",
                    name_of(shape.input), name_of(shape.output));
    description_ = pd.weights_desc();
    const size_t weight_lines = lines(description_.get_size()),
                 row_lines = lines(shape.outputs * sizeof(float));
    data_.resize(weight_lines + row_lines * (shape.is_8bit() ? 2 : 1));
    bias_data_ = reinterpret_cast<float*>(data_.data() + weight_lines);
    weights_ = memory(description_, engine, data_.data());
    bias_ = memory(vector_of(shape.outputs), engine, bias_data_);
    if (shape.is_8bit()) {
        static std::atomic<size_t> layers{0};
        number_ = ++layers;
        scale_data_ = reinterpret_cast<float*>(data_.data() + weight_lines + row_lines);
        scales_ = memory(vector_of(shape.outputs), engine, scale_data_);
        quantise(weight, bias, engine);
        return;
    }
    if (bias != nullptr) std::memcpy(bias_data_, bias, shape.outputs * sizeof(float));
    pack(memory::data_type::f32, weight, engine);
}

void Layer::quantise(const float* weight, const float* bias, const dnnl::engine& engine) {
    const size_t inputs = shape().inputs;
    const Quantisation& x = shape().input_quantisation;
    std::vector<int8_t> rows(shape().outputs * inputs);
    for (size_t o = 0; o < shape().outputs; ++o) {
        int8_t* row = rows.data() + o * inputs;
        const float row_factor = row_scale(weight + o * inputs, inputs);
        quantize_row(weight + o * inputs, row_factor, row, inputs);
        int64_t sum = 0;
        for (size_t i = 0; i < inputs; ++i)
            sum += row[i];
        // A row of zeros has scale 0; any other does as well, and can be divided by.
        const float scale = x.scale * (row_factor > 0 ? row_factor : 1.0F);
        const float value = (bias != nullptr ? bias[o] : 0.0F) - scale * x.zero * static_cast<float>(sum);
        scale_data_[o] = scale;
#if DNNL_VERSION_MAJOR >= 3
        bias_data_[o] = value;
#else
        bias_data_[o] = value / scale;  // oneDNN 2 adds the bias before it scales
#endif
    }
    pack(memory::data_type::s8, rows.data(), engine);
}

// weight: [outputs, inputs].
void Layer::pack(memory::data_type type, const void* weight, const dnnl::engine& engine) {
    // oneDNN takes a pointer to non-const and only reads it.
    const memory source(matrix(shape().outputs, shape().inputs, type, memory::format_tag::ab), engine,
                        const_cast<void*>(weight));
    const ThreadCount one(1);  // opening a model wakes no threads, which would go on spinning for a while
    dnnl::stream stream(engine);
    dnnl::reorder(source, weights_).execute(stream, {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, weights_}});
    stream.wait();
}

dnnl::inner_product_forward::primitive_desc Layer::describe(memory::dim rows,
                                                            const dnnl::engine& engine) const {
    return description_of(shape(), has_bias_, rows, description_, scale_data_, engine);
}

}  // namespace espalier::onednn

#endif
