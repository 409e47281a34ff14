// The kernels that take the place of AVX-512's where the processor has products of 8-bit quads (AVX512_VNNI).
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"

namespace espalier::avx512vnni {

void attention_s8(const AttentionShape& shape, const uint16_t* qkv, size_t tokens, size_t head, float* out,
                  float* scratch);
void gemm_s8(const PackedDense& dense, const GemmCall& call);
// With AVX512_BF16 as well: queries, keys and values leave in bfloat16.
void gemm_s8_bf16(const PackedDense& dense, const GemmCall& call);
void leaf_forest_s8(const LeafForest& forest, const ForestCall& call);
// With AVX512_BF16 as well: for the walk, since 8-bit values are exact in bfloat16.
void leaf_forest_s8_bf16(const LeafForest& forest, const ForestCall& call);
void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier::avx512vnni
