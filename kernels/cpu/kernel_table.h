// One table of kernels, by name, filled once: the block loop calls through it and never asks again which
// machine it is on.
#pragma once

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"
#include "kernels/norm/norm.h"
#include "kernels/quantize/quantize.h"

namespace espalier {

struct KernelTable {
    Isa isa;
    ActivationKernel activate;
    AttentionKernel attention;
    CachedAttentionKernel cached_attention;
    CachedQueriesKernel cached_queries;
    // By the type of the arithmetic, both on bfloat16; null where float32 serves better.
    NarrowAttentionKernel attention_bf16, attention_s8;
    GemmKernel gemm_f32, gemm_bf16, gemm_s8;                                     // by the type of the rows
    LeafForestKernel leaf_forest_f32, leaf_forest_bf16, leaf_forest_s8;          // by the type of the rows
    NeuronForestKernel neuron_forest_f32, neuron_forest_bf16, neuron_forest_s8;  // by the type of the rows
    NormKernel norm;
    RoundKernel round;
    WidenKernel widen, add_widened;
    // What bf16 and 8-bit kernels multiply with, for inspect and bench.
    const char* bf16_products;
    const char* s8_products;

    // Null for float32 as well.
    NarrowAttentionKernel narrow_attention(TensorType precision) const {
        return precision == TensorType::bf16 ? attention_bf16
               : precision == TensorType::s8 ? attention_s8
                                             : nullptr;
    }
    GemmKernel gemm(TensorType rows) const {
        return rows == TensorType::f32 ? gemm_f32 : rows == TensorType::bf16 ? gemm_bf16 : gemm_s8;
    }
    LeafForestKernel leaf_forest(TensorType rows) const {
        return rows == TensorType::f32    ? leaf_forest_f32
               : rows == TensorType::bf16 ? leaf_forest_bf16
                                          : leaf_forest_s8;
    }
    NeuronForestKernel neuron_forest(TensorType rows) const {
        return rows == TensorType::f32    ? neuron_forest_f32
               : rows == TensorType::bf16 ? neuron_forest_bf16
                                          : neuron_forest_s8;
    }
};

// The table of an available instruction set. Throws Error(unsupported) that names those there are.
const KernelTable& kernel_table(Isa isa);

}  // namespace espalier
