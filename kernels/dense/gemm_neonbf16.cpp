// Products of 2 x 4 by 4 x 2 bfloat16, and of pairs: processors with BF16.
#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/neonbf16.h"

namespace espalier::neonbf16 {

void gemm_bf16(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<NeonArch, TensorType::bf16>(dense, call);
}

}  // namespace espalier::neonbf16
