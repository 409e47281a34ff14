// The specification of the activations.
#include <cmath>

#include "kernels/cpu/scalar.h"

namespace espalier::scalar {
namespace {

float apply(Activation activation, float x) {
    constexpr float sqrt_half = 0.70710678F, sqrt_two_over_pi = 0.79788456F;
    switch (activation) {
        case Activation::none:
            return x;
        case Activation::gelu_erf:
            return 0.5F * x * (1.0F + std::erf(x * sqrt_half));
        case Activation::gelu_tanh:
            return 0.5F * x * (1.0F + std::tanh(sqrt_two_over_pi * (x + 0.044715F * x * x * x)));
        case Activation::relu:
            return x < 0 ? 0.0F : x;  // keeps NaN
        case Activation::silu:
            return x / (1.0F + std::exp(-x));
        case Activation::tanh:
            return std::tanh(x);
    }
    return x;
}

}  // namespace

void activate(Activation activation, float* values, size_t count) {
    for (size_t i = 0; i < count; ++i)
        values[i] = apply(activation, values[i]);
}

}  // namespace espalier::scalar
