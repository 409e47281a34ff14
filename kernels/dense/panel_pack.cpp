#include "kernels/dense/panel_pack.h"

#include <algorithm>
#include <bit>

#include "base/float16.h"
#include "kernels/dense/panel.h"

namespace espalier {
namespace {

// As quantize_row rounds: to nearest even, for which adding and taking off 1.5 * 2^23 is enough below 2^22.
uint32_t quantised(float value, float scale) {
    constexpr float shift = 12582912.0F;
    const float steps = scale > 0 ? std::clamp(value / scale, -127.0F, 127.0F) : 0.0F;
    const float whole = (steps + shift) - shift;
    return static_cast<uint8_t>(static_cast<int8_t>(whole));
}

}  // namespace

void pack_panels(TensorType type, const MatrixSource& source, size_t k, size_t columns, size_t padded_columns,
                 const float* column_scales, const float* k_scales, uint32_t* target) {
    const size_t group = panel_group(type), bits = 32 / group;
    std::fill_n(target, packed_words(type, k, padded_columns), type == TensorType::s8 ? 0x80808080u : 0);
    for (size_t column = 0; column < columns; ++column) {
        for (size_t row = 0; row < k; ++row) {
            const float value = source.data[row * source.k_stride + column * source.column_stride];
            uint32_t& word = target[packed_word(type, k, padded_columns, row, column)];
            const auto shift = static_cast<uint32_t>(row % group * bits);
            switch (type) {
                case TensorType::bf16:
                    word |= static_cast<uint32_t>(bfloat_from_float(value)) << shift;
                    break;
                case TensorType::s8:
                    // + 128 turns the top bit, which stands set.
                    word ^= quantised(value, column_scales != nullptr ? column_scales[column] : k_scales[row])
                            << shift;
                    break;
                default:
                    word = std::bit_cast<uint32_t>(value);
                    break;
            }
        }
    }
}

}  // namespace espalier
