// The kernels that take the place of NEON's where the processor has products of small bfloat16 matrices
// (BF16).
#pragma once

#include "kernels/dense/gemm.h"

namespace espalier::neonbf16 {

void gemm_bf16(const PackedDense& dense, const GemmCall& call);

}  // namespace espalier::neonbf16
