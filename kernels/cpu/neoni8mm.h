// The kernels that take the place of NEON's where the processor has products of small 8-bit matrices (I8MM).
#pragma once

#include "kernels/dense/gemm.h"

namespace espalier::neoni8mm {

void gemm_s8(const PackedDense& dense, const GemmCall& call);

}  // namespace espalier::neoni8mm
