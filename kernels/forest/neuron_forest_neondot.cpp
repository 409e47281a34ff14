// Products of 8-bit quads: processors with DotProd.
#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/neondot.h"

namespace espalier::neondot {

void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<NeonArch, TensorType::s8>(forest, call);
}

}  // namespace espalier::neondot
