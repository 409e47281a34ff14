#include "kernels/forest/leaf_forest-inl.h"

#include "kernels/cpu/avx512bf16.h"

namespace espalier::avx512bf16 {

void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call) {
    leaf_forest_tokens<xsimd::avx512bw, TensorType::bf16>(forest, call);
}

}  // namespace espalier::avx512bf16
