// The kernels of one instruction set, as kernel_table.cpp fills them in.
#pragma once

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"
#include "kernels/norm/norm.h"
#include "kernels/quantize/quantize.h"

namespace espalier::avx2 {

void activate(Activation activation, float* values, size_t count);
void attention(const AttentionShape& shape, const float* qkv, size_t tokens, size_t head, float* out,
               float* scratch);
void cached_attention(const CachedHead& seen, const float* query, float scale, float* out, float* scratch);
void cached_queries(const CachedHead& seen, const CachedQueries& queries, float scale, float* scratch);
void gemm_f32(const PackedDense& dense, const GemmCall& call);
void gemm_bf16(const PackedDense& dense, const GemmCall& call);
void gemm_s8(const PackedDense& dense, const GemmCall& call);
void leaf_forest_f32(const LeafForest& forest, const ForestCall& call);
void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call);
void leaf_forest_s8(const LeafForest& forest, const ForestCall& call);
void neuron_forest_f32(const NeuronForest& forest, const ForestCall& call);
void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call);
void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call);
void norm(const NormWeights& norm, const float* x, const float* residual, float* y,
          const RoundedRows& rounded, size_t tokens);
void round(TensorType type, bool rotated, const float* x, size_t rows, size_t columns, void* y, float* scale);
void widen(TensorType type, const void* source, float scale, float* target, size_t count);
void add_widened(TensorType type, const void* source, float scale, float* target, size_t count);

}  // namespace espalier::avx2
