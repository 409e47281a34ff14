// What the walks of both kinds of forest share.
#pragma once

#include <cstdint>

#include "base/types.h"

namespace espalier {
namespace {

// Both without a branch, which a walk would mispredict half of the time.
inline bool goes_right(float value, TieRule tie) {
    const bool tied = value == 0 && tie == TieRule::zero_goes_right;
    return (static_cast<int>(value > 0) | static_cast<int>(tied)) != 0;
}

// A NaN margin stays NaN: it says that the walk means nothing. As integers, magnitudes are ordered as they
// are as numbers; the offset lets those of NaN wrap around to the lowest.
inline float smaller_margin(float margin, float value) {
    constexpr uint32_t offset = 0x807fffffu;
    uint32_t least = 0, distance = 0;
    __builtin_memcpy(&least, &margin, sizeof(least));
    __builtin_memcpy(&distance, &value, sizeof(distance));
    least += offset;
    distance = (distance & 0x7fffffffu) + offset;
    least = (distance < least ? distance : least) - offset;
    __builtin_memcpy(&margin, &least, sizeof(least));
    return margin;
}

#if defined(__AVX512F__)
// Of `left` values that are left, those of one vector.
[[gnu::always_inline]] inline __mmask16 lanes_of(size_t left) {
    return static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1);
}
#endif

// The smallest of all, as smaller_margin has it; infinite where there are none.
inline float smallest_margin(const float* values, size_t count) {
    float margin = INFINITY;
#if defined(__AVX512F__)
    const __m512i offset = _mm512_set1_epi32(static_cast<int32_t>(0x807fffffu));
    __m512i least = _mm512_set1_epi32(-1);
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 there = lanes_of(count - i);
        const __m512i bits = _mm512_maskz_loadu_epi32(there, values + i);
        const __m512i distance =
            _mm512_add_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)), offset);
        least = _mm512_mask_min_epu32(least, there, least, distance);
    }
    const uint32_t bits = _mm512_reduce_min_epu32(least) - 0x807fffffu;
    __builtin_memcpy(&margin, &bits, sizeof(bits));
#else
    for (size_t i = 0; i < count; ++i)
        margin = smaller_margin(margin, values[i]);
#endif
    return margin;
}

}  // namespace
}  // namespace espalier
