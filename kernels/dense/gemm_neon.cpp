#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = NeonArch;

void gemm_f32(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<Arch, TensorType::f32>(dense, call);
}
void gemm_bf16(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<Arch, TensorType::bf16>(dense, call);
}
void gemm_s8(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<Arch, TensorType::s8>(dense, call);
}

}  // namespace espalier::neon
