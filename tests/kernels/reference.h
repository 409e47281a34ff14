// The functions that several references need, in double precision, with what float32 may err by.
#pragma once

#include <cmath>

#include "tests/activation_reference.h"
#include "tests/kernels/support.h"

namespace espalier::test {

// The forms with 1 + erf or 1 + tanh lose the relative accuracy of small results left of zero: there the
// error is a few units of x, not of the result.
inline double activation_budget(Activation activation, double x) {
    switch (activation) {
        case Activation::none:
        case Activation::relu:
            return 0;
        case Activation::gelu_erf:
            return 4 * unit * std::fabs(x);
        // The argument of tanh errs by a few units of itself; where tanh still changes it is below 10.
        case Activation::gelu_tanh:
            return 8 * unit * std::fabs(x);
        // exp(-x) errs by |x| units, through the rounding of its argument.
        case Activation::silu:
            return (6 + std::fabs(x)) * unit * std::fabs(activated(activation, x));
        case Activation::tanh:
            return 8 * unit * std::fabs(activated(activation, x));
    }
    return 0;
}

struct Dot {
    double value, budget;
};
// start + sum of a[i] b[i * stride].
inline Dot dot(const float* a, const float* b, size_t stride, size_t count, double start) {
    double value = start, absolute = std::fabs(start);
    for (size_t i = 0; i < count; ++i) {
        const double product = static_cast<double>(a[i]) * b[i * stride];
        value += product;
        absolute += std::fabs(product);
    }
    return {value, sum_budget(count + 1, absolute)};
}

inline constexpr Activation all_activations[] = {Activation::none,      Activation::gelu_erf,
                                                 Activation::gelu_tanh, Activation::relu,
                                                 Activation::silu,      Activation::tanh};

}  // namespace espalier::test
