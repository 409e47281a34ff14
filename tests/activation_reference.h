// Activations in double precision.
#pragma once

#include <cmath>

#include "base/types.h"

namespace espalier::test {

inline double activated(Activation activation, double x) {
    switch (activation) {
        case Activation::none:
            return x;
        case Activation::gelu_erf:
            return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
        case Activation::gelu_tanh:
            return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        case Activation::relu:
            return x < 0 ? 0 : x;
        case Activation::silu:
            return x / (1 + std::exp(-x));
        case Activation::tanh:
            return std::tanh(x);
    }
    return x;
}

}  // namespace espalier::test
