// The specification of the dense product.
#include <type_traits>

#include "base/float16.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"

namespace espalier::scalar {
namespace {

float number(float value) {
    return value;
}
float number(uint16_t value) {
    return float_from_bfloat(value);
}
// Packed values stand 128 too high; only their bytes are looked at.
int32_t number(int8_t value) {
    return int32_t{static_cast<uint8_t>(value)} - 128;
}

// The sums of row x with the `columns` columns of a panel, k in order.
template <class Value, class Sum>
void add_products(const Value* x, size_t inputs, const uint32_t* panel, size_t columns, Sum* sum) {
    constexpr size_t group = 4 / sizeof(Value);
    for (size_t k = 0; k < inputs; ++k) {
        const auto* words = reinterpret_cast<const std::byte*>(panel + k / group * columns);
        for (size_t c = 0; c < columns; ++c) {
            Value value;
            __builtin_memcpy(&value, words + (c * group + k % group) * sizeof(Value), sizeof(Value));
            if constexpr (sizeof(Value) == 1) {
                sum[c] += x[k] * number(value);
            } else {
                sum[c] += number(x[k]) * number(value);
            }
        }
    }
}

template <class Value>
void gemm(const PackedDense& d, const GemmCall& call) {
    constexpr bool is_8bit = sizeof(Value) == 1;
    const size_t groups = panel_groups(d.type, d.inputs);
    for (size_t r = 0; r < call.rows; ++r) {
        for (size_t p = call.first_panel; p < call.last_panel; ++p) {
            const size_t start = p * panel_columns, left = d.padded_outputs() - start;
            const size_t columns = left < panel_columns ? left : panel_columns;
            std::conditional_t<is_8bit, int32_t, float> sum[panel_columns] = {};
            for (size_t c = 0; c < columns && !is_8bit; ++c)
                sum[c] = d.bias[start + c];
            add_products(static_cast<const Value*>(call.x) + r * d.inputs, d.inputs,
                         d.weight + start * groups, columns, sum);
            for (size_t c = 0; c < columns && start + c < d.outputs; ++c) {
                auto y = static_cast<float>(sum[c]);
                if constexpr (is_8bit) y = y * (call.x_scale[r] * d.scale[start + c]) + d.bias[start + c];
                activate(d.activation, &y, 1);
                const size_t at = r * d.outputs + start + c;
                if (d.output == TensorType::bf16) {
                    static_cast<uint16_t*>(call.y)[at] = bfloat_from_float(y);
                } else {
                    static_cast<float*>(call.y)[at] = y;
                }
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
