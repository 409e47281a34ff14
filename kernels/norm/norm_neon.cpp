#include "kernels/norm/norm-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = NeonArch;

void norm(const NormWeights& n, const float* x, const float* residual, float* y, const RoundedRows& rounded,
          size_t tokens) {
    norm_rows<Arch>(n, x, residual, y, rounded, tokens);
}

}  // namespace espalier::neon
