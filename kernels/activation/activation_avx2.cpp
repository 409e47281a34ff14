#include "kernels/activation/activation-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

void activate(Activation activation, float* values, size_t count) {
    activate_values<Arch>(activation, values, count);
}

}  // namespace espalier::avx2
