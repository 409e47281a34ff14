// Products of 2 x 4 by 4 x 2 bfloat16, and of pairs: processors with BF16.
#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/neonbf16.h"

namespace espalier::neonbf16 {

void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<NeonArch, TensorType::bf16>(forest, call);
}

}  // namespace espalier::neonbf16
