#include "kernels/activation/activation-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void activate(Activation activation, float* values, size_t count) {
    activate_values<Arch>(activation, values, count);
}

}  // namespace espalier::avx512
