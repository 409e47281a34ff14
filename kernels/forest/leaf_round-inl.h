// Activations of leaves rounded to the type of the rows that they meet next.
#pragma once

#include "kernels/quantize/round-inl.h"

namespace espalier {
namespace {

// values times `scale`, which is that of their down rows; the bits of their sizes into `largest`.
template <class Arch>
inline void scale_values(float* values, const float* scale, size_t count, Integers<Arch>& largest) {
    using V = Floats<Arch>;
    for (size_t i = 0; i < count; i += lanes<Arch>) {
        const V scaled = V::load_unaligned(values + i) * V::load_unaligned(scale + i);
        scaled.store_unaligned(values + i);
        largest = xsimd::max(largest, size_bits<Arch>(scaled));
    }
}

// A token's activations, those of the shared neurons and those of its leaf, to 8 bits with one scale, which
// it gives back; sum: of what is stored. Counts are multiples of leaf_width_multiple. What is turned is whole
// blocks of vectors: a width that has any needs no padding.
template <class Arch>
inline float round_activations(float* values, const float* shared_scale, size_t shared, size_t rotated_shared,
                               const float* leaf_scale, size_t leaf, size_t rotated_leaf, int8_t* target,
                               int32_t& sum) {
    using V = Floats<Arch>;
    if (rotated_shared > 0) rotate_row<Arch>(values, rotated_shared);
    if (rotated_leaf > 0) rotate_row<Arch>(values + shared, rotated_leaf);
    Integers<Arch> sizes(0);
    scale_values<Arch>(values, shared_scale, shared, sizes);
    scale_values<Arch>(values + shared, leaf_scale, leaf, sizes);
    const ByteSteps bytes(largest_lane<Arch>(sizes));
    const V steps(bytes.steps);
    Integers<Arch> sums(0);
    for (size_t i = 0; i < shared + leaf; i += lanes<Arch>) {
        const V value = bytes.finite ? V::load_unaligned(values + i) : V(0.0F);
        const Integers<Arch> stored = nearest<Arch>(value * steps);
        sums = sums + stored;
        store_bytes<Arch>(stored, target + i);
    }
    sum = xsimd::hadd(sums);
    return bytes.scale;
}

}  // namespace
}  // namespace espalier
