#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void neuron_forest(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch>(forest, call);
}

}  // namespace espalier::avx512
