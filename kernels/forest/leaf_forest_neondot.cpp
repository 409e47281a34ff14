// Products of 8-bit quads: processors with DotProd.
#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/neondot.h"

namespace espalier::neondot {

void leaf_forest_s8(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<NeonArch, TensorType::s8>(forest, call);
}

}  // namespace espalier::neondot
