// The kernels that take the place of AVX-512's where the processor has products of bfloat16 pairs
// (AVX512_BF16).
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"

namespace espalier::avx512bf16 {

void attention(const AttentionShape& shape, const uint16_t* qkv, size_t tokens, size_t head, float* out,
               float* scratch);
void gemm_bf16(const PackedDense& dense, const GemmCall& call);
void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call);
void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier::avx512bf16
