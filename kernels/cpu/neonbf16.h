// The kernels that take the place of NEON's where the processor has products of bfloat16 pairs and of small
// matrices of them (BF16).
#pragma once

#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"

namespace espalier::neonbf16 {

void gemm_bf16(const PackedDense& dense, const GemmCall& call);
void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call);
void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier::neonbf16
