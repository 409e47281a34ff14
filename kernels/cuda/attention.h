// Scaled dot-product attention over packed sequences, every token of a sequence against every other
// (kernels/attention). Softmax is float32; products are of the type of queries, keys and values, or of 8
// bits, to which they are rounded.
#pragma once

#include "base/types.h"
#include "kernels/cuda/device.h"

namespace espalier::cuda {

inline constexpr size_t widest_head = 64, head_multiple = 8;

struct AttentionCall {
    size_t heads = 0, kv_heads = 0, head_dimension = 0;
    float scale = 0;
    TensorType type = TensorType::f32;  // of products, qkv and out; of 8 bits, qkv is bfloat16, out float32
    const void* qkv = nullptr;          // [tokens, (heads + 2 kv_heads) head_dimension]
    void* out = nullptr;                // [tokens, heads head_dimension]
    const uint32_t* offsets = nullptr;  // [sequences + 1], on the device
    size_t tokens = 0, sequences = 0, longest = 0;
    void* scratch = nullptr;  // of 8 bits: byte_attention_scratch bytes, at a multiple of 64
    cudaStream_t stream = nullptr;
};

// Of 8 bits are heads of whole vectors, as on the CPU.
constexpr bool fits_byte_attention(size_t head_dimension) {
    return head_dimension % 16 == 0;
}
size_t byte_attention_scratch(size_t heads, size_t kv_heads, size_t dimension, size_t tokens,
                              size_t sequences);

void attend(const AttentionCall& call);
// The parts of it for bfloat16 and 8 bits.
void attend_bf16(const AttentionCall& call);
void attend_bytes(const AttentionCall& call);

}  // namespace espalier::cuda
