// What the walks of both kinds of forest share.
#pragma once

#include <cmath>

#include "base/types.h"

namespace espalier {
namespace {

inline bool goes_right(float value, TieRule tie) {
    return tie == TieRule::zero_goes_left ? value > 0 : value >= 0;
}

// A NaN margin stays NaN: it says that the walk means nothing.
inline float smaller_margin(float margin, float value) {
    const float distance = std::fabs(value);
    return distance < margin || distance != distance ? distance : margin;
}

}  // namespace
}  // namespace espalier
