// The kernels that take the place of NEON's where the processor has products of 8-bit quads (ARMv8.2
// DotProd).
#pragma once

#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"

namespace espalier::neondot {

void gemm_s8(const PackedDense& dense, const GemmCall& call);
void leaf_forest_s8(const LeafForest& forest, const ForestCall& call);
void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier::neondot
