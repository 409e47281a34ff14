#include "kernels/forest/forest-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void leaf_forest(const LeafForest& forest, const float* x, size_t tokens, float* y,
                 const ForestRoutes& routes, std::byte* scratch) {
    leaf_forest_tokens<Arch>(forest, x, tokens, y, routes, scratch);
}

void neuron_forest(const NeuronForest& forest, const float* x, size_t tokens, float* y,
                   const ForestRoutes& routes, std::byte* scratch) {
    neuron_forest_tokens<Arch>(forest, x, tokens, y, routes, scratch);
}

}  // namespace espalier::avx512
