#include "kernels/attention/attention-inl.h"
#include "kernels/attention/attention_cached-inl.h"
#include "kernels/attention/attention_s8-inl.h"

#include "kernels/cpu/avx512.h"

namespace espalier::avx512 {

using Arch = xsimd::avx512bw;

void attention(const AttentionShape& shape, const float* qkv, size_t tokens, size_t head, float* out,
               float* scratch) {
    attention_head<Arch>(shape, qkv, tokens, head, out, scratch);
}

void cached_attention(const CachedHead& seen, const float* query, float scale, float* out, float* scratch) {
    attend_cached<Arch>(seen, query, scale, out, scratch);
}

void cached_queries(const CachedHead& seen, const CachedQueries& queries, float scale, float* scratch) {
    attend_cached_queries<Arch>(seen, queries, scale, scratch);
}

void attention_s8(const AttentionShape& shape, const uint16_t* qkv, size_t tokens, size_t head, float* out,
                  float* scratch) {
    attention_head_s8(shape, qkv, tokens, head, out, scratch);
}

}  // namespace espalier::avx512
