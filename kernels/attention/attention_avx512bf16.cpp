#include "kernels/attention/attention_bf16-inl.h"

#include "kernels/cpu/avx512bf16.h"

namespace espalier::avx512bf16 {

void attention(const AttentionShape& shape, const uint16_t* qkv, size_t tokens, size_t head, float* out,
               float* scratch) {
    attention_head_bf16(shape, qkv, tokens, head, out, scratch);
}

}  // namespace espalier::avx512bf16
