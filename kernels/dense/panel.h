// How matrices are packed for the register-blocked product (panel-inl.h): a k x n matrix lies in panels of 64
// columns (the last one narrower), one after the other, and a panel row by row. A place of a row is one
// 32-bit word and holds as many neighbouring k of its column as fit:
//
//   f32    one value          [panel][k][columns]
//   bf16   two                [panel][k / 2][columns][2]
//   s8     four, each + 128   [panel][k / 4][columns][4]   (vpdpbusd multiplies unsigned by signed)
//
// so that one word of A, spread over a vector, meets a vector of B whatever the type. n is a multiple of 16,
// a whole AVX-512 vector of words; k is filled up with zeros.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace espalier {

inline constexpr size_t panel_columns = 64;

// Values of one column in a word.
constexpr size_t panel_group(TensorType type) {
    return 4 / bytes_of(type);
}
constexpr size_t panel_groups(TensorType type, size_t k) {
    return (k + panel_group(type) - 1) / panel_group(type);
}
// Words of a packed matrix; and which of them holds (k, column).
constexpr size_t packed_words(TensorType type, size_t k, size_t columns) {
    return panel_groups(type, k) * columns;
}
constexpr size_t packed_word(TensorType type, size_t k, size_t columns, size_t row, size_t column) {
    const size_t groups = panel_groups(type, k), panel = column / panel_columns;
    const size_t rest = columns - panel * panel_columns;
    const size_t width = rest < panel_columns ? rest : panel_columns;
    return panel * panel_columns * groups + row / panel_group(type) * width + column % panel_columns;
}

// Whether a packed matrix holds nothing but the values: as many bytes as the matrix has, no filling.
constexpr bool packs_exactly(TensorType type, size_t k, size_t columns) {
    return k % panel_group(type) == 0 && columns % 16 == 0;
}

}  // namespace espalier
