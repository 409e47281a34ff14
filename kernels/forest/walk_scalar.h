// What the specifications of both kinds of forest share.
#pragma once

#include <cmath>
#include <cstddef>

#include "base/types.h"

namespace espalier::scalar {

inline float dot(const float* a, const float* b, size_t count) {
    float sum = 0;
    for (size_t i = 0; i < count; ++i)
        sum += a[i] * b[i];
    return sum;
}

inline bool goes_right(float value, TieRule tie) {
    return tie == TieRule::zero_goes_left ? value > 0 : value >= 0;
}

// A NaN margin stays NaN: it says that the walk means nothing.
inline float smaller_margin(float margin, float value) {
    const float distance = std::fabs(value);
    return distance < margin || std::isnan(distance) ? distance : margin;
}

}  // namespace espalier::scalar
