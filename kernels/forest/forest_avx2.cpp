#include "kernels/forest/forest-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

void leaf_forest(const LeafForest& forest, const float* x, size_t tokens, float* y,
                 const ForestRoutes& routes, std::byte* scratch) {
    leaf_forest_tokens<Arch>(forest, x, tokens, y, routes, scratch);
}

void neuron_forest(const NeuronForest& forest, const float* x, size_t tokens, float* y,
                   const ForestRoutes& routes, std::byte* scratch) {
    neuron_forest_tokens<Arch>(forest, x, tokens, y, routes, scratch);
}

}  // namespace espalier::avx2
