// A decoder's keys and values on a CUDA device (runtime/kv_cache.h has the CPU's), in the type of its
// products: half as wide in bfloat16.
#pragma once

#include <vector>

#include "kernels/cuda/cached_attention.h"
#include "runtime/kv_cache.h"

namespace espalier {

class CudaCache {
   public:
    // For passes of at most `tokens` tokens. sequence: has its length and the angles; must outlive the cache.
    CudaCache(const Model& model, const KeyValueCache& sequence, size_t tokens);

    size_t length() const { return sequence_.length(); }
    uint64_t bytes() const { return cached_bytes_; }
    // A bound of what a sequence of so many tokens needs launches for, the same for many lengths: what is
    // recorded for one serves the next.
    size_t bound(size_t length) const;

    // Attention of new tokens in block b, and their keys and values into the cache. seen: bound() of the
    // sequence with these; queries and scratch are the cache's own.
    void attend(size_t b, cuda::NewTokens tokens, cudaStream_t stream) const;

   private:
    const KeyValueCache& sequence_;
    std::vector<cuda::CachedHeads> blocks_;  // by block; those without attention have none
    cuda::Rotation rotation_;
    uint64_t cached_bytes_ = 0;
    cuda::Buffer memory_, angles_;
    void* queries_ = nullptr;
    float* scratch_ = nullptr;
};

}  // namespace espalier
