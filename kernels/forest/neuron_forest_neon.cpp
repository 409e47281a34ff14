#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = NeonArch;

void neuron_forest_f32(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::f32>(forest, call);
}

void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::bf16>(forest, call);
}

void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch, TensorType::s8>(forest, call);
}

}  // namespace espalier::neon
