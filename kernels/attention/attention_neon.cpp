#include "kernels/attention/attention-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = NeonArch;

void attention(const AttentionShape& shape, const float* qkv, size_t tokens, size_t head, float* out,
               float* scratch) {
    attention_head<Arch>(shape, qkv, tokens, head, out, scratch);
}

}  // namespace espalier::neon
