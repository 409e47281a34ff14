// Products of bfloat16 pairs: processors with BF16.
#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/neonbf16.h"

namespace espalier::neonbf16 {

void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<NeonArch, TensorType::bf16>(forest, call);
}

}  // namespace espalier::neonbf16
