// The rotation of one row on vectors; specification: rotate() in quantize_scalar.cpp.
#pragma once

#include "kernels/cpu/simd-inl.h"
#include "kernels/quantize/rotate.h"

namespace espalier {
namespace {

// Sizes of numbers as bits, whose order is theirs: NaN is above infinity there, and that above all numbers.
template <class Arch>
[[gnu::always_inline]] inline Integers<Arch> size_bits(Floats<Arch> values) {
    return same_bits<Integers<Arch>>(values) & Integers<Arch>(0x7fffffff);
}

// Hadamard matrices over the blocks of a row of which value(i) is the vector from i on, asked once for each
// and before its y is written.
template <class Arch, size_t span, class Value>
[[gnu::always_inline]] inline void mix_blocks(const Value& value, size_t count, float* y) {
    using V = Floats<Arch>;
    // 1 / sqrt(span)
    const V scale(span == 16 ? 0.25F : span == 8 ? 0.353553391F : span == 4 ? 0.5F : 0.707106781F);
    for (size_t start = 0; start < count; start += rotation_step * span) {
        for (size_t lane = start; lane < start + rotation_step; lane += lanes<Arch>) {
            V v[span];
#pragma GCC unroll 16
            for (size_t i = 0; i < span; ++i)
                v[i] = value(lane + i * rotation_step);
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

// x - 2 * (mean over the blocks), in place. known: how many blocks there are, so that they stay in registers;
// 0: any number.
template <class Arch, size_t known>
inline Integers<Arch> reflect_blocks(float* y, size_t block, size_t any) {
    using V = Floats<Arch>;
    const size_t blocks = known > 0 ? known : any;
    const V share(2.0F / static_cast<float>(blocks));
    Integers<Arch> sizes(0);
    for (size_t lane = 0; lane < block; lane += lanes<Arch>) {
        V sum = V::load_unaligned(y + lane);
        for (size_t b = 1; b < blocks; ++b)
            sum = sum + V::load_unaligned(y + b * block + lane);
        sum = sum * share;
        for (size_t b = 0; b < blocks; ++b) {
            const V turned = V::load_unaligned(y + b * block + lane) - sum;
            turned.store_unaligned(y + b * block + lane);
            sizes = xsimd::max(sizes, size_bits<Arch>(turned));
        }
    }
    return sizes;
}

template <class Arch, class Value>
[[gnu::always_inline]] inline void mix_blocks(const Value& value, size_t count, float* y) {
    switch (rotation_span(count)) {
        case 16:
            return mix_blocks<Arch, 16>(value, count, y);
        case 8:
            return mix_blocks<Arch, 8>(value, count, y);
        case 4:
            return mix_blocks<Arch, 4>(value, count, y);
        default:
            return mix_blocks<Arch, 2>(value, count, y);
    }
}

// The bits of the largest sizes of whole vectors, lane by lane.
template <class Arch>
inline Integers<Arch> largest_sizes(const float* y, size_t count) {
    Integers<Arch> sizes(0);
    for (size_t i = 0; i < count; i += lanes<Arch>)
        sizes = xsimd::max(sizes, size_bits<Arch>(Floats<Arch>::load_unaligned(y + i)));
    return sizes;
}

// y: the row of which value(i) is the vector from i on, turned; rotation_span(count) is more than 1. The
// answer: the bits of y's largest sizes, lane by lane.
template <class Arch, class Value>
[[gnu::always_inline]] inline Integers<Arch> rotate_values(const Value& value, size_t count, float* y) {
    const size_t blocks = rotation_blocks(count), block = rotation_step * rotation_span(count);
    mix_blocks<Arch>(value, count, y);
    if (blocks == 1) return largest_sizes<Arch>(y, count);
    if (blocks == 3) return reflect_blocks<Arch, 3>(y, block, blocks);  // hidden 384 and 768
    return reflect_blocks<Arch, 0>(y, block, blocks);
}

// In place. Not inlined: it stands at several places of every leaf kernel.
template <class Arch>
[[gnu::noinline]] void rotate_row(float* y, size_t count) {
    rotate_values<Arch>([y](size_t i) { return Floats<Arch>::load_unaligned(y + i); }, count, y);
}

}  // namespace
}  // namespace espalier
