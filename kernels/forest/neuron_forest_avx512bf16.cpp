// Products of bfloat16 pairs: processors with AVX512_BF16.
#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/avx512bf16.h"

namespace espalier::avx512bf16 {

void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<xsimd::avx512bw, TensorType::bf16>(forest, call);
}

}  // namespace espalier::avx512bf16
