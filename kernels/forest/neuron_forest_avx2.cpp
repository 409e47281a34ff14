#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

void neuron_forest_f32(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::f32>(forest, call);
}

void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::bf16>(forest, call);
}

void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::s8>(forest, call);
}

}  // namespace espalier::avx2
