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

// A tensor of 8-bit matrices [rows, row_length] that pack exactly, one after the other. Products sum over
// rows (neurons that are added up), else over what a row holds.
struct ByteMatrices {
    size_t elements = 0, rows = 0, row_length = 0;
    bool sums_over_rows = false;
};
void pack_bytes(const ByteMatrices& shape, const int8_t* values, uint8_t* packed);
void unpack_bytes(const ByteMatrices& shape, const uint8_t* packed, int8_t* values);

}  // namespace espalier
