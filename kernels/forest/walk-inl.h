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

}  // namespace
}  // namespace espalier
