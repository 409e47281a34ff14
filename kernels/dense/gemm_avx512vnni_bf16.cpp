#include "kernels/dense/gemm-inl.h"

#include "kernels/cpu/avx512vnni.h"

namespace espalier::avx512vnni {

void gemm_s8_bf16(const PackedDense& dense, const GemmCall& call) {
    gemm_panels<xsimd::avx512bw, TensorType::s8>(dense, call);
}

}  // namespace espalier::avx512vnni
