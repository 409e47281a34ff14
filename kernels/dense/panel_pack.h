// Packs a row-major float32 matrix into the panels of panel.h, rounded to their type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace espalier {

// A k x n matrix as it stands in the caller's memory: (k, column) is data[k * k_stride + column *
// column_stride]. One of the two strides is 1.
struct MatrixSource {
    const float* data = nullptr;
    size_t k_stride = 0, column_stride = 0;
};

// 8-bit values have one scale a column or one a row of k: exactly one of the two is given, [columns] or [k];
// for other types neither is. target: packed_words(type, k, padded_columns) words.
void pack_panels(TensorType type, const MatrixSource& source, size_t k, size_t columns, size_t padded_columns,
                 const float* column_scales, const float* k_scales, uint32_t* target);

}  // namespace espalier
