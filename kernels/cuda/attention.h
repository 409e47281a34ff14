// Scaled dot-product attention over packed sequences, every token of a sequence against every other
// (kernels/attention). Softmax is float32; products are of the type of queries, keys and values.
#pragma once

#include "base/types.h"
#include "kernels/cuda/device.h"

namespace espalier::cuda {

inline constexpr size_t widest_head = 64, head_multiple = 8;

struct AttentionCall {
    size_t heads = 0, kv_heads = 0, head_dimension = 0;
    float scale = 0;
    TensorType type = TensorType::f32;  // of qkv and out
    const void* qkv = nullptr;          // [tokens, (heads + 2 kv_heads) head_dimension]
    void* out = nullptr;                // [tokens, heads head_dimension]
    const uint32_t* offsets = nullptr;  // [sequences + 1], on the device
    size_t sequences = 0, longest = 0;
    cudaStream_t stream = nullptr;
};

void attend(const AttentionCall& call);
// The part of it for bfloat16.
void attend_bf16(const AttentionCall& call);

}  // namespace espalier::cuda
