#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = xsimd::neon64;

void leaf_forest(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<Arch>(forest, call);
}

}  // namespace espalier::neon
