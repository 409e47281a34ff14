#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = xsimd::neon64;

void neuron_forest(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch>(forest, call);
}

}  // namespace espalier::neon
