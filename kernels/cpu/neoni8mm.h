// The kernels that take the place of DotProd's (neondot.h) where the processor has products of small 8-bit
// matrices as well (I8MM). Neuron forests stay with quads: in a walk every token has a row of its own, and
// half of a matrix of two rows by two tokens would be thrown away.
#pragma once

#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"

namespace espalier::neoni8mm {

void gemm_s8(const PackedDense& dense, const GemmCall& call);
void leaf_forest_s8(const LeafForest& forest, const ForestCall& call);

}  // namespace espalier::neoni8mm
