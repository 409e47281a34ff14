#include "kernels/norm/norm-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void norm(const NormWeights& n, const float* x, const float* residual, float* y, const RoundedRows& rounded,
          size_t tokens) {
    norm_rows<Arch>(n, x, residual, y, rounded, tokens);
}

}  // namespace espalier::avx512
