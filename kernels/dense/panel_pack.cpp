#include "kernels/dense/panel_pack.h"

#include <algorithm>
#include <bit>

#include "base/float16.h"
#include "kernels/dense/panel.h"
#include "kernels/quantize/quantize.h"

namespace espalier {
namespace {

// As quantize_row rounds: to nearest even, for which adding and taking off 1.5 * 2^23 is enough below 2^22.
uint32_t quantised(float value, float scale) {
    constexpr float shift = 12582912.0F;
    const float steps = rounds_to_steps(scale) ? std::clamp(value / scale, -127.0F, 127.0F) : 0.0F;
    const float whole = (steps + shift) - shift;
    return static_cast<uint8_t>(static_cast<int8_t>(whole));
}

// One value as its word holds it. 8-bit: + 128, which turns the top bit.
template <TensorType type>
uint32_t stored(float value, [[maybe_unused]] float scale) {
    if constexpr (type == TensorType::f32) return std::bit_cast<uint32_t>(value);
    if constexpr (type == TensorType::bf16) return bfloat_from_float(value);
    return quantised(value, scale) ^ 0x80u;
}

// Word by word as they lie: the cache lines of 64 columns stay in reach, whichever way the source lies.
template <TensorType type>
void pack(const MatrixSource& source, size_t k, size_t columns, size_t padded_columns,
          const float* column_scales, const float* k_scales, uint32_t* target) {
    constexpr size_t group = panel_group(type), bits = 32 / group;
    constexpr uint32_t zeros = type == TensorType::s8 ? 0x80808080u : 0;
    for (size_t start = 0; start < padded_columns; start += panel_columns) {
        const size_t end = std::min(start + panel_columns, padded_columns);
        for (size_t row = 0; row < k; row += group) {
            const size_t count = std::min(group, k - row);
            for (size_t column = start; column < end; ++column, ++target) {
                uint32_t word = zeros;
                const float* value = source.data + row * source.k_stride + column * source.column_stride;
                for (size_t i = 0; i < count && column < columns; ++i, value += source.k_stride) {
                    const float scale = column_scales != nullptr ? column_scales[column]
                                        : k_scales != nullptr    ? k_scales[row + i]
                                                                 : 0.0F;
                    const uint32_t mask = group > 1 ? (uint32_t{1} << (bits % 32)) - 1 : 0xffffffffu;
                    word = (word & ~(mask << (i * bits))) | stored<type>(*value, scale) << (i * bits);
                }
                *target = word;
            }
        }
    }
}

}  // namespace

void pack_panels(TensorType type, const MatrixSource& source, size_t k, size_t columns, size_t padded_columns,
                 const float* column_scales, const float* k_scales, uint32_t* target) {
    switch (type) {
        case TensorType::bf16:
            return pack<TensorType::bf16>(source, k, columns, padded_columns, nullptr, nullptr, target);
        case TensorType::s8:
            return pack<TensorType::s8>(source, k, columns, padded_columns, column_scales, k_scales, target);
        default:
            return pack<TensorType::f32>(source, k, columns, padded_columns, nullptr, nullptr, target);
    }
}

}  // namespace espalier
