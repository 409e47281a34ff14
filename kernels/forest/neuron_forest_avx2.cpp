#include "kernels/forest/neuron_forest-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

void neuron_forest(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_tokens<Arch>(forest, call);
}

}  // namespace espalier::avx2
