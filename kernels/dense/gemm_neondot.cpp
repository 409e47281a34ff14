// Products of 8-bit quads: processors with DotProd.
#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/neondot.h"

namespace espalier::neondot {

void gemm_s8(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<NeonArch, TensorType::s8>(dense, call);
}

}  // namespace espalier::neondot
