// Stored number types to float32 and back. 8-bit is symmetric: one scale a row, scale = absmax / 127, round
// to nearest even, so that value = stored * scale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/types.h"

namespace espalier {

// source: [count] of a type with numbers (f32, f16, bf16, s8); target: [count] float32, written or added to.
// s8: times `scale`.
using WidenKernel = void (*)(TensorType type, const void* source, float scale, float* target, size_t count);

// Float32 to bf16 (to nearest even) or s8. x: [rows, columns]; y: as many of that type; scale: [rows],
// written for s8 alone: that of the row's largest size / 127, and y to nearest even of x * (127 / largest). A
// row with a value that is not finite has scale NaN and zeros; one of nothing above 1e-35 has zeros. rotated:
// 8-bit rows are turned first (rotate.h).
using RoundKernel = void (*)(TensorType type, bool rotated, const float* x, size_t rows, size_t columns,
                             void* y, float* scale);

// The scale of one row, whose values lie `stride` apart, and the row rounded by it. A row of zeros has scale
// 0. One with a value that is not finite has a scale that is not, and zeros: whatever it is part of becomes
// NaN.
float row_scale(const float* row, size_t count, size_t stride = 1);
inline bool rounds_to_steps(float scale) {
    return scale > 0 && scale <= std::numeric_limits<float>::max();
}
void quantize_row(const float* row, float scale, int8_t* target, size_t count);

}  // namespace espalier
