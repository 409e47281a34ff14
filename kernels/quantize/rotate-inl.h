// The rotation of one row on vectors; specification: rotate() in quantize_scalar.cpp.
#pragma once

#include "kernels/cpu/simd-inl.h"
#include "kernels/quantize/rotate.h"

namespace espalier {
namespace {

// Hadamard matrices over the blocks. y may be x.
template <class Arch, size_t span>
inline void rotate_blocks(const float* x, size_t count, float* y) {
    using V = Floats<Arch>;
    // 1 / sqrt(span)
    const V scale(span == 16 ? 0.25F : span == 8 ? 0.353553391F : span == 4 ? 0.5F : 0.707106781F);
    for (size_t start = 0; start < count; start += rotation_step * span) {
        for (size_t lane = start; lane < start + rotation_step; lane += lanes<Arch>) {
            V v[span];
#pragma GCC unroll 16
            for (size_t i = 0; i < span; ++i)
                v[i] = V::load_unaligned(x + lane + i * rotation_step);
#pragma GCC unroll 4
            for (size_t half = 1; half < span; half *= 2) {
#pragma GCC unroll 16
                for (size_t i = 0; i < span; ++i) {
                    if ((i & half) != 0) continue;
                    const V sum = v[i] + v[i + half];
                    v[i + half] = v[i] - v[i + half];
                    v[i] = sum;
                }
            }
#pragma GCC unroll 16
            for (size_t i = 0; i < span; ++i)
                (v[i] * scale).store_unaligned(y + lane + i * rotation_step);
        }
    }
}

// A row for which rotation_span is more than 1. y may be x.
template <class Arch>
inline void rotate_row(const float* x, size_t count, float* y) {
    using V = Floats<Arch>;
    const size_t span = rotation_span(count), blocks = rotation_blocks(count), block = rotation_step * span;
    switch (span) {
        case 16:
            rotate_blocks<Arch, 16>(x, count, y);
            break;
        case 8:
            rotate_blocks<Arch, 8>(x, count, y);
            break;
        case 4:
            rotate_blocks<Arch, 4>(x, count, y);
            break;
        default:
            rotate_blocks<Arch, 2>(x, count, y);
            break;
    }
    if (blocks == 1) return;
    const V share(2.0F / static_cast<float>(blocks));
    for (size_t lane = 0; lane < block; lane += lanes<Arch>) {
        V sum = V::load_unaligned(y + lane);
        for (size_t b = 1; b < blocks; ++b)
            sum = sum + V::load_unaligned(y + b * block + lane);
        sum = sum * share;
        for (size_t b = 0; b < blocks; ++b)
            (V::load_unaligned(y + b * block + lane) - sum).store_unaligned(y + b * block + lane);
    }
}

}  // namespace
}  // namespace espalier
