// Products of 2 x 8 by 8 x 2 bytes, and of quads: processors with I8MM and DotProd.
#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/neoni8mm.h"

namespace espalier::neoni8mm {

void gemm_s8(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<NeonArch, TensorType::s8>(dense, call);
}

}  // namespace espalier::neoni8mm
