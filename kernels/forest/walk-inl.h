// What the walks of both kinds of forest share.
#pragma once

#include <cstdint>

#include "base/types.h"

namespace espalier {
namespace {

// Four tokens at once, on the 128-bit vectors that every instruction set has. Without a branch: a walk would
// mispredict half of them.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIntegers __attribute__((vector_size(16)));
typedef uint32_t FourWords __attribute__((vector_size(16)));

template <class Value>
struct FourOf;
template <>
struct FourOf<float> {
    using Type = Four;
};
template <>
struct FourOf<int32_t> {
    using Type = FourIntegers;
};
template <>
struct FourOf<uint32_t> {
    using Type = FourWords;
};

// The first `width` lanes: one or all.
template <size_t width, class Value>
[[gnu::always_inline]] inline typename FourOf<Value>::Type load(const Value* from) {
    typename FourOf<Value>::Type four = {};
    __builtin_memcpy(&four, from, width * sizeof(Value));
    return four;
}
template <size_t width, class Vector, class Value>
[[gnu::always_inline]] inline void store(Vector four, Value* to) {
    __builtin_memcpy(to, &four, width * sizeof(Value));
}
template <class To, class From>
[[gnu::always_inline]] inline To same_bits_of(From four) {
    return __builtin_bit_cast(To, four);
}

// All bits of a lane that goes right.
[[gnu::always_inline]] inline FourIntegers goes_right(Four value, TieRule tie) {
    const Four zero = {};
    return tie == TieRule::zero_goes_right ? value >= zero : value > zero;
}

// The smaller of a margin and |value|. A NaN margin stays NaN: it says that the walk means nothing. As
// integers, magnitudes are ordered as they are as numbers; the offset lets those of NaN wrap around to the
// lowest.
[[gnu::always_inline]] inline Four smaller_margin(Four margin, Four value) {
    constexpr uint32_t offset = 0x807fffffu;
    const auto least = same_bits_of<FourWords>(margin) + offset,
               distance = (same_bits_of<FourWords>(value) & 0x7fffffffu) + offset;
    return same_bits_of<Four>((distance < least ? distance : least) - offset);
}

}  // namespace
}  // namespace espalier
