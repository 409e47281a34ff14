#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void leaf_forest(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<Arch>(forest, call);
}

}  // namespace espalier::avx512
