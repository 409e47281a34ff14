// Stored numbers to float32 on vectors; specification: quantize_scalar.cpp.
#pragma once

#include "kernels/cpu/scalar.h"
#include "kernels/cpu/simd-inl.h"

namespace espalier {
namespace {

// target = or += the numbers. load(i): a vector of them from i on, of any type but float32.
template <class Arch, bool add, class Load>
inline void widen_numbers(TensorType type, const void* source, float scale, float* target, size_t count,
                          const Load& load) {
    using V = Floats<Arch>;
    size_t i = 0;
    if (type == TensorType::f16 || type == TensorType::bf16 || type == TensorType::s8) {
        for (; i + lanes<Arch> <= count; i += lanes<Arch>) {
            V values = load(i);
            if constexpr (add) values = V::load_unaligned(target + i) + values;
            values.store_unaligned(target + i);
        }
    }
    const auto* rest = static_cast<const char*>(source) + i * bytes_of(type);
    (add ? scalar::add_widened : scalar::widen)(type, rest, scale, target + i, count - i);
}

}  // namespace
}  // namespace espalier
