// Activations on vectors; specification: activation_scalar.cpp.
#pragma once

#include "kernels/activation/activation.h"
#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

template <class Arch, Activation activation>
inline Floats<Arch> apply(Floats<Arch> x) {
    using V = Floats<Arch>;
    if constexpr (activation == Activation::gelu_erf) {
        const V half = V(0.5F) * x;
        return xsimd::fma(half, xsimd::erf(x * V(0.70710678F)), half);
    } else if constexpr (activation == Activation::gelu_tanh) {
        const V inner = V(0.79788456F) * xsimd::fma(V(0.044715F) * x * x, x, x);
        const V half = V(0.5F) * x;
        return xsimd::fma(half, xsimd::tanh(inner), half);
    } else if constexpr (activation == Activation::relu) {
        return xsimd::select(x < V(0.0F), V(0.0F), x);
    } else if constexpr (activation == Activation::silu) {
        return x / (V(1.0F) + xsimd::exp(-x));
    } else {
        return xsimd::tanh(x);
    }
}

template <class Arch, Activation activation>
inline void apply_all(float* values, size_t count) {
    constexpr size_t w = lanes<Arch>;
    size_t i = 0;
    for (; i + w <= count; i += w)
        apply<Arch, activation>(Floats<Arch>::load_unaligned(values + i)).store_unaligned(values + i);
    if (i < count)
        store_partial<Arch>(values + i, apply<Arch, activation>(load_partial<Arch>(values + i, count - i)),
                            count - i);
}

template <class Arch>
inline void activate_values(Activation activation, float* values, size_t count) {
    switch (activation) {
        case Activation::none:
            break;
        case Activation::gelu_erf:
            apply_all<Arch, Activation::gelu_erf>(values, count);
            break;
        case Activation::gelu_tanh:
            apply_all<Arch, Activation::gelu_tanh>(values, count);
            break;
        case Activation::relu:
            apply_all<Arch, Activation::relu>(values, count);
            break;
        case Activation::silu:
            apply_all<Arch, Activation::silu>(values, count);
            break;
        case Activation::tanh:
            apply_all<Arch, Activation::tanh>(values, count);
            break;
    }
}

}  // namespace
}  // namespace espalier
