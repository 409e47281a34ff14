#include "runtime/rotary.h"

#include <cmath>
#include <numbers>

namespace espalier {

double rotary_step(const ModelSpec& spec, size_t i) {
    const double step =
        std::pow(static_cast<double>(spec.rope_theta), -2.0 * static_cast<double>(i) / spec.rope_dimensions);
    const auto& [factor, low, high, original] = spec.rope_scaling;
    if (factor == 0) return step;
    if (original == 0) return step / factor;
    const double turns = original * step / (2 * std::numbers::pi);  // in the original window
    if (turns > high) return step;
    if (turns < low) return step / factor;
    const double share = (turns - low) / (static_cast<double>(high) - low);
    return (1 - share) * step / factor + share * step;
}

}  // namespace espalier
