#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/avx512bf16.h"

namespace espalier::avx512bf16 {

void gemm_bf16(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<xsimd::avx512bw, TensorType::bf16>(dense, call);
}

}  // namespace espalier::avx512bf16
