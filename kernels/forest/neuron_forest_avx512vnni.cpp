// Products of 8-bit quads: processors with AVX512_VNNI.
#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/avx512vnni.h"

namespace espalier::avx512vnni {

void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<xsimd::avx512bw, TensorType::s8>(forest, call);
}

}  // namespace espalier::avx512vnni
