// Activations of leaves rounded to the type of the rows that they meet next.
#pragma once

#include <bit>
#include <cmath>

#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

template <class Arch>
inline void round_to_bfloat(const float* values, size_t count, uint16_t* target) {
    for (size_t i = 0; i < count; ++i)
        target[i] = rounded_to_bf16(values[i]);
}

// lanes<Arch> integers of -127 to 127.
template <class Arch>
inline void store_bytes(Integers<Arch> values, int8_t* target) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm512_cvtepi32_epi8(values));
#else
    alignas(64) int32_t wide[lanes<Arch>];
    values.store_aligned(wide);
    for (size_t i = 0; i < lanes<Arch>; ++i)
        target[i] = static_cast<int8_t>(wide[i]);
#endif
}

// values times `scale`, which is that of their down rows; their sizes, as bits, into `largest`: NaN is above
// infinity there, and that above all numbers.
template <class Arch>
inline void scale_values(float* values, const float* scale, size_t count, Integers<Arch>& largest) {
    using V = Floats<Arch>;
    for (size_t i = 0; i < count; i += lanes<Arch>) {
        const V scaled = V::load_unaligned(values + i) * V::load_unaligned(scale + i);
        scaled.store_unaligned(values + i);
        largest =
            xsimd::max(largest, xsimd::bitwise_cast<Integers<Arch>>(scaled) & Integers<Arch>(0x7fffffff));
    }
}

// A token's activations, those of the shared neurons and those of its leaf, to 8 bits with one scale, which
// it gives back; sum: of what is stored. Counts are multiples of leaf_width_multiple. Values that are not
// finite give scale NaN and zeros.
template <class Arch>
inline float round_to_bytes(float* values, const float* shared_scale, size_t shared, const float* leaf_scale,
                            size_t leaf, int8_t* target, int32_t& sum) {
    using V = Floats<Arch>;
    Integers<Arch> sizes(0);
    scale_values<Arch>(values, shared_scale, shared, sizes);
    scale_values<Arch>(values + shared, leaf_scale, leaf, sizes);
    alignas(64) int32_t of_lane[lanes<Arch>];
    sizes.store_aligned(of_lane);
    int32_t largest = 0;
    for (const int32_t size : of_lane)
        largest = size > largest ? size : largest;
    const float most = std::bit_cast<float>(largest);
    const bool finite = largest < 0x7f800000;
    // Below, 127 / most would overflow; products of this size mean nothing beside a bias.
    const V steps(finite && most > 1e-35F ? 127.0F / most : 0.0F);
    Integers<Arch> sums(0);
    for (size_t i = 0; i < shared + leaf; i += lanes<Arch>) {
        const V value = finite ? V::load_unaligned(values + i) : V(0.0F);
        const Integers<Arch> stored = xsimd::to_int(xsimd::nearbyint(value * steps));
        sums = sums + stored;
        store_bytes<Arch>(stored, target + i);
    }
    sum = xsimd::hadd(sums);
    return finite ? most / 127.0F : NAN;
}

}  // namespace
}  // namespace espalier
