#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void neuron_forest_f32(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::f32>(forest, call);
}

void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::bf16>(forest, call);
}

void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::s8>(forest, call);
}

}  // namespace espalier::avx512
