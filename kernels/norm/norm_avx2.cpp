#include "kernels/norm/norm-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

void norm(const NormWeights& n, const float* x, const float* residual, float* y, const RoundedRows& rounded,
          size_t tokens) {
    norm_rows<Arch>(n, x, residual, y, rounded, tokens);
}

}  // namespace espalier::avx2
