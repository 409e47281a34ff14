#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

void leaf_forest(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<Arch>(forest, call);
}

}  // namespace espalier::avx2
