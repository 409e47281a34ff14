// What kernels share: 16-byte loads widened to float32, sums over a warp, activations.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "base/types.h"

namespace espalier::cuda {

using bf16 = __nv_bfloat16;

// Values of a 16-byte load.
template <class T>
inline constexpr int vector_values = 16 / static_cast<int>(sizeof(T));

template <class T>
struct Vector {
    float values[vector_values<T>];
};

// A load's bits as numbers of the type that is named.
__device__ inline Vector<float> widened(const uint4& raw, const float*) {
    return {{__uint_as_float(raw.x), __uint_as_float(raw.y), __uint_as_float(raw.z), __uint_as_float(raw.w)}};
}
// A bfloat16 is the upper half of a float32.
__device__ inline Vector<bf16> widened(const uint4& raw, const bf16*) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    Vector<bf16> v;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        v.values[2 * i] = __uint_as_float(words[i] << 16);
        v.values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return v;
}

template <class T>
__device__ inline Vector<T> load_vector(const T* from) {
    return widened(*reinterpret_cast<const uint4*>(from), from);
}

// All lanes get the same sum, to the bit: each step adds the same two numbers on both sides.
__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

__device__ inline float activated(Activation activation, float x) {
    switch (activation) {
        case Activation::none:
            return x;
        case Activation::gelu_erf:
            return 0.5F * x * (1.0F + erff(x * 0.70710678F));
        case Activation::gelu_tanh:
            return 0.5F * x * (1.0F + tanhf(0.79788456F * (x + 0.044715F * x * x * x)));
        case Activation::relu:
            return x < 0 ? 0.0F : x;  // keeps NaN
        case Activation::silu:
            return x / (1.0F + expf(-x));
        case Activation::tanh:
            return tanhf(x);
    }
    return x;
}

// The same for results that are rounded to bfloat16: erf within 2e-7 (Abramowitz and Stegun, 7.1.26), in a
// third of the instructions.
__device__ inline float narrowly_activated(Activation activation, float x) {
    if (activation != Activation::gelu_erf) return activated(activation, x);
    const float z = fabsf(x) * 0.70710678F, t = __fdividef(1.0F, 1.0F + 0.3275911F * z);
    const float p = t * (0.254829592F +
                         t * (-0.284496736F + t * (1.421413741F + t * (-1.453152027F + t * 1.061405429F))));
    const float rest = p * __expf(-z * z);  // 1 - erf(|z|)
    return 0.5F * x * (x < 0 ? rest : 2.0F - rest);
}

template <class T>
__device__ inline T narrowed(float value);
template <>
__device__ inline float narrowed<float>(float value) {
    return value;
}
template <>
__device__ inline bf16 narrowed<bf16>(float value) {
    return __float2bfloat16_rn(value);
}
__device__ inline float widened(float value) {
    return value;
}
__device__ inline float widened(bf16 value) {
    return __bfloat162float(value);
}

__device__ inline float4 load_four_values(const float* from) {
    return *reinterpret_cast<const float4*>(from);
}
__device__ inline float4 load_four_values(const bf16* from) {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    return make_float4(__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u),
                       __uint_as_float(raw.y << 16), __uint_as_float(raw.y & 0xffff0000u));
}
__device__ inline void store_four_values(float* to, const float4& v) {
    *reinterpret_cast<float4*>(to) = v;
}
__device__ inline void store_four_values(bf16* to, const float4& v) {
    alignas(8)
        const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(v.x, v.y), __floats2bfloat162_rn(v.z, v.w)};
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(pairs);
}

__device__ inline bool goes_right(float value, bool zero_goes_right) {
    return zero_goes_right ? value >= 0 : value > 0;
}

// A NaN margin stays NaN.
__device__ inline float smaller_margin(float margin, float value) {
    const float distance = fabsf(value);
    return distance < margin || isnan(distance) ? distance : margin;
}

}  // namespace espalier::cuda
