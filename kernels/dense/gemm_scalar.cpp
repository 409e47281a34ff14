// The specification of the dense product.
#include "base/float16.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"

namespace espalier::scalar {
namespace {

// Value (k, output) of the packed weights.
template <class Value>
Value packed(const PackedDense& d, size_t k, size_t output) {
    const size_t group = panel_group(d.type);
    const uint32_t word = d.weight[packed_word(d.type, d.inputs, d.padded_outputs(), k, output)];
    Value values[4 / sizeof(Value)];
    __builtin_memcpy(values, &word, sizeof(word));
    return values[k % group];
}

float product(const PackedDense& d, const float* x, float, size_t o) {
    float sum = d.bias[o];
    for (size_t i = 0; i < d.inputs; ++i)
        sum += x[i] * packed<float>(d, i, o);
    return sum;
}

float product(const PackedDense& d, const uint16_t* x, float, size_t o) {
    float sum = d.bias[o];
    for (size_t i = 0; i < d.inputs; ++i)
        sum += float_from_bfloat(x[i]) * float_from_bfloat(packed<uint16_t>(d, i, o));
    return sum;
}

float product(const PackedDense& d, const int8_t* x, float x_scale, size_t o) {
    int32_t sum = 0;
    for (size_t i = 0; i < d.inputs; ++i)
        sum += x[i] * (int32_t{packed<uint8_t>(d, i, o)} - 128);
    return static_cast<float>(sum) * (x_scale * d.scale[o]) + d.bias[o];
}

template <class Value>
void gemm(const PackedDense& d, const GemmCall& call) {
    const size_t end =
        call.last_panel * panel_columns < d.outputs ? call.last_panel * panel_columns : d.outputs;
    for (size_t r = 0; r < call.rows; ++r) {
        const Value* x = static_cast<const Value*>(call.x) + r * d.inputs;
        for (size_t o = call.first_panel * panel_columns; o < end; ++o) {
            float y = product(d, x, call.x_scale != nullptr ? call.x_scale[r] : 1.0F, o);
            activate(d.activation, &y, 1);
            if (d.output == TensorType::bf16) {
                static_cast<uint16_t*>(call.y)[r * d.outputs + o] = bfloat_from_float(y);
            } else {
                static_cast<float*>(call.y)[r * d.outputs + o] = y;
            }
        }
    }
}

}  // namespace

void gemm_f32(const PackedDense& dense, const GemmCall& call) {
    gemm<float>(dense, call);
}
void gemm_bf16(const PackedDense& dense, const GemmCall& call) {
    gemm<uint16_t>(dense, call);
}
void gemm_s8(const PackedDense& dense, const GemmCall& call) {
    gemm<int8_t>(dense, call);
}

}  // namespace espalier::scalar
