#include "kernels/attention/attention-inl.h"
#include "kernels/attention/attention_cached-inl.h"

#include "kernels/cpu/avx2.h"

namespace espalier::avx2 {

using Arch = xsimd::fma3<xsimd::avx2>;

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

}  // namespace espalier::avx2
