// A change of coordinates before numbers are rounded to 8 bits (QuaRot, arXiv 2404.00456): one large value of
// a row would make the steps of all others coarse, and a product stays the same when both its rows are turned
// alike.
//
// Numbers i, i + 16, i + 32, … are mixed, never neighbours, so that vectors are added and subtracted whole: a
// Hadamard matrix of `span` over each block of 16 * span numbers, then, over the blocks, x - 2 * (their
// mean), which is a reflection. The two commute, each is orthogonal and symmetric: the rotation is its own
// inverse.
#pragma once

#include <cstddef>

namespace espalier {

inline constexpr size_t rotation_step = 16;
// Longer rows stay as they are: kernels turn a row in a buffer on the stack (16 KiB).
inline constexpr size_t rotation_limit = 4096;

// 1: rows of this length are not turned.
constexpr size_t rotation_span(size_t count) {
    if (count > rotation_limit || count == 0) return 1;
    size_t span = 1;
    while (span < 16 && count % (rotation_step * span * 2) == 0)
        span *= 2;
    return span;
}
// Blocks that are reflected; of two, that would merely exchange them.
constexpr size_t rotation_blocks(size_t count) {
    const size_t blocks = count / (rotation_step * rotation_span(count));
    return rotation_span(count) > 1 && blocks > 2 ? blocks : 1;
}

// In place, along `count` items of `width` numbers each (a row: width 1; the rows of a matrix turned among
// themselves: their length).
void rotate(float* values, size_t count, size_t width = 1);
void rotate(double* values, size_t count, size_t width = 1);

// A tensor of matrices [rows, length], along the dimension that its products sum over: the last, or the rows.
template <typename Number>
void rotate_tensor(Number* values, size_t elements, size_t rows, size_t length, bool along_rows) {
    const size_t count = along_rows ? rows : length, width = along_rows ? length : 1;
    for (size_t at = 0; at < elements; at += count * width)
        rotate(values + at, count, width);
}

}  // namespace espalier
