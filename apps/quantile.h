// Medians and tails of measured times.
#pragma once

#include <algorithm>
#include <vector>

namespace espalier {

// The nearest rank at or above the share q; 0 of nothing.
inline double quantile(std::vector<double> values, double q) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const auto rank = static_cast<size_t>(q * static_cast<double>(values.size()));
    return values[std::min(rank, values.size() - 1)];
}

}  // namespace espalier
