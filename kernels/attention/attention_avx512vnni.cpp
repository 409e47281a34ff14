#include "kernels/attention/attention_s8-inl.h"

#include "kernels/cpu/avx512vnni.h"

namespace espalier::avx512vnni {

void attention_s8(const AttentionShape& shape, const uint16_t* qkv, size_t tokens, size_t head, float* out,
                  float* scratch) {
    attention_head_s8(shape, qkv, tokens, head, out, scratch);
}

}  // namespace espalier::avx512vnni
