#include "runtime/cuda/cuda_cache.h"

#include <algorithm>
#include <bit>

#include "runtime/arena.h"

namespace espalier {

CudaCache::CudaCache(const Model& model, const KeyValueCache& sequence, size_t tokens) : sequence_(sequence) {
    const ModelSpec& spec = model.spec();
    const TensorType type = model.precision() == TensorType::f32 ? TensorType::f32 : TensorType::bf16;
    const size_t window = sequence.window(), size = bytes_of(type);
    size_t query = 0, scratch = 0;
    for (const BlockSpec& block : spec.blocks) {
        cuda::CachedHeads heads;
        if (block.has(block_flag::attention)) {
            heads.heads = block.heads;
            heads.kv_heads = block.kv_heads;
            heads.head_dimension = block.head_dimension;
            heads.scale = block.attention_scale;
            heads.type = type;
            heads.window = window;
            cached_bytes_ += 2 * block.kv_width() * window * size;
            query = std::max<size_t>(query, block.query_width());
            scratch =
                std::max(scratch, cuda::newest_floats(block.heads, block.head_dimension, bound(window)));
        }
        blocks_.push_back(heads);
    }
    const auto lay_out = [&](Arena arena) {
        for (cuda::CachedHeads& heads : blocks_) {
            const size_t bytes = heads.kv_heads * heads.head_dimension * window * size;
            heads.keys = arena.take<std::byte>(bytes);
            heads.values = arena.take<std::byte>(bytes);
        }
        queries_ = arena.take<std::byte>(tokens * query * size);
        scratch_ = arena.take<float>(scratch);
        return arena.used();
    };
    memory_ = cuda::Buffer(lay_out(Arena(nullptr)));
    lay_out(Arena(memory_.as<std::byte>()));

    const size_t angles = sequence.cosines().size_bytes();
    if (angles == 0) return;
    angles_ = cuda::Buffer(2 * angles);
    auto* cosines = angles_.as<float>();
    float* sines = cosines + sequence.cosines().size();
    cuda::check(cudaMemcpy(cosines, sequence.cosines().data(), angles, cudaMemcpyHostToDevice),
                "copying angles");
    cuda::check(cudaMemcpy(sines, sequence.sines().data(), angles, cudaMemcpyHostToDevice), "copying angles");
    rotation_ = {cosines, sines, spec.rope_dimensions, spec.rope_pairing == RopePairing::neighbours};
}

size_t CudaCache::bound(size_t length) const {
    constexpr size_t least = 256;
    return std::max(least, std::min(std::bit_ceil(length), sequence_.window()));
}

void CudaCache::attend(size_t b, cuda::NewTokens tokens, cudaStream_t stream) const {
    tokens.queries = queries_;
    tokens.scratch = scratch_;
    cuda::store(blocks_[b], rotation_, tokens, stream);
    cuda::attend(blocks_[b], tokens, stream);
}

}  // namespace espalier
