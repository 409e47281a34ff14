#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = NeonArch;

void leaf_forest_f32(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<Arch, TensorType::f32>(forest, call);
}
void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<Arch, TensorType::bf16>(forest, call);
}
void leaf_forest_s8(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<Arch, TensorType::s8>(forest, call);
}

}  // namespace espalier::neon
