#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void gemm_f32(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<Arch, TensorType::f32>(dense, call);
}
void gemm_bf16(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<Arch, TensorType::bf16>(dense, call);
}
void gemm_s8(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<Arch, TensorType::s8>(dense, call);
}

}  // namespace espalier::avx512
