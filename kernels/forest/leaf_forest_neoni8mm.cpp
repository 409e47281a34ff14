// Products of 2 x 8 by 8 x 2 bytes, and of quads: processors with I8MM and DotProd.
#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/neoni8mm.h"

namespace espalier::neoni8mm {

void leaf_forest_s8(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<NeonArch, TensorType::s8>(forest, call);
}

}  // namespace espalier::neoni8mm
