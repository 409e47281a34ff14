#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = xsimd::neon64;

void gemm(const PackedDense& dense, const float* x, size_t rows, size_t first_panel, size_t last_panel,
          float* y) {
    gemm_panels<Arch>(dense, x, rows, first_panel, last_panel, y);
}

}  // namespace espalier::neon
