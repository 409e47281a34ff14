// The specification of the stored types.
#include <algorithm>
#include <bit>
#include <cmath>

#include "base/float16.h"
#include "kernels/cpu/scalar.h"
#include "kernels/quantize/rotate.h"

namespace espalier {

float row_scale(const float* row, size_t count, size_t stride) {
    // Sizes compared as integers, whose order is theirs: no call for each.
    int32_t largest = 0;
    for (size_t i = 0; i < count; ++i)
        largest = std::max(largest, std::bit_cast<int32_t>(row[i * stride]) & 0x7fffffff);
    return std::bit_cast<float>(largest) / 127.0F;
}

void quantize_row(const float* row, float scale, int8_t* target, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        // nearbyint rounds to nearest even in the default mode. Only a subnormal scale, itself rounded to few
        // bits, lets the largest values pass 127.
        const float steps = rounds_to_steps(scale) ? std::nearbyint(row[i] / scale) : 0.0F;
        target[i] = static_cast<int8_t>(std::fmin(std::fmax(steps, -127.0F), 127.0F));
    }
}

namespace {

template <class Number>
void rotate_numbers(Number* values, size_t count, size_t width) {
    const size_t span = rotation_span(count), blocks = rotation_blocks(count);
    if (span == 1) return;
    const size_t step = rotation_step * width, items = count / rotation_step;
    for (size_t half = 1; half < span; half *= 2) {
        for (size_t item = 0; item < items; ++item) {
            if ((item & half) != 0) continue;
            Number *a = values + item * step, *b = a + half * step;
            for (size_t i = 0; i < step; ++i) {
                const Number sum = a[i] + b[i];
                b[i] = a[i] - b[i];
                a[i] = sum;
            }
        }
    }
    const Number scale = 1 / std::sqrt(static_cast<Number>(span));
    for (size_t i = 0; i < items * step; ++i)
        values[i] *= scale;
    const Number share = 2 / static_cast<Number>(blocks);
    for (size_t i = 0; i < span * step && blocks > 1; ++i) {
        Number sum = 0;
        for (size_t b = 0; b < blocks; ++b)
            sum += values[b * span * step + i];
        sum *= share;
        for (size_t b = 0; b < blocks; ++b)
            values[b * span * step + i] -= sum;
    }
}

}  // namespace

void rotate(float* values, size_t count, size_t width) {
    rotate_numbers(values, count, width);
}
void rotate(double* values, size_t count, size_t width) {
    rotate_numbers(values, count, width);
}

}  // namespace espalier

namespace espalier::scalar {

namespace {

float widened(TensorType type, const void* source, float scale, size_t i) {
    switch (type) {
        case TensorType::f32:
            return static_cast<const float*>(source)[i];
        case TensorType::f16:
            return float_from_half(static_cast<const uint16_t*>(source)[i]);
        case TensorType::bf16:
            return float_from_bfloat(static_cast<const uint16_t*>(source)[i]);
        case TensorType::s8:
            return scale * static_cast<float>(static_cast<const int8_t*>(source)[i]);
        case TensorType::u8:
        case TensorType::u32:
            break;  // no numbers: the reader refuses them as weights
    }
    return 0;
}

}  // namespace

void widen(TensorType type, const void* source, float scale, float* target, size_t count) {
    for (size_t i = 0; i < count; ++i)
        target[i] = widened(type, source, scale, i);
}

void add_widened(TensorType type, const void* source, float scale, float* target, size_t count) {
    for (size_t i = 0; i < count; ++i)
        target[i] += widened(type, source, scale, i);
}

void round(TensorType type, bool rotated, const float* x, size_t rows, size_t columns, void* y,
           float* scale) {
    float turned[rotation_limit];
    for (size_t r = 0; r < rows; ++r) {
        const float* row = x + r * columns;
        if (type == TensorType::bf16) {
            for (size_t i = 0; i < columns; ++i)
                static_cast<uint16_t*>(y)[r * columns + i] = bfloat_from_float(row[i]);
            continue;
        }
        if (rotated && rotation_span(columns) > 1) {
            std::copy(row, row + columns, turned);
            rotate(turned, columns);
            row = turned;
        }
        float largest = 0;
        bool finite = true;
        for (size_t i = 0; i < columns; ++i) {
            finite = finite && std::isfinite(row[i]);
            largest = std::fmax(largest, std::fabs(row[i]));
        }
        const float steps = finite && largest > 1e-35F ? 127.0F / largest : 0.0F;
        for (size_t i = 0; i < columns; ++i)
            static_cast<int8_t*>(y)[r * columns + i] =
                static_cast<int8_t>(finite ? std::nearbyint(row[i] * steps) : 0.0F);
        scale[r] = finite ? largest / 127.0F : NAN;
    }
}

}  // namespace espalier::scalar
