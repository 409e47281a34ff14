#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/avx512vnni.h"

namespace espalier::avx512vnni {

void leaf_forest_s8(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<xsimd::avx512bw, TensorType::s8>(forest, call);
}

}  // namespace espalier::avx512vnni
