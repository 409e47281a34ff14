// What a decoder remembers of the sequence so far: keys and values of every block that has attention. Blocks
// without attention take none. Causal attention reads it; rotary positions are applied on the way in.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <span>
#include <vector>

#include "runtime/arena.h"
#include "runtime/model.h"

namespace espalier {

class KeyValueCache {
   public:
    // All memory, for `window` tokens and these threads, comes from the arena (which may only count). Where
    // blocks run on a device, keys and values are there (device_encoder.h), and this has the sequence's
    // length and the tables of angles.
    KeyValueCache(Arena& arena, const Model& model, size_t window, int threads, bool on_device);

    size_t window() const { return window_; }
    size_t length() const { return length_; }
    // Of keys and values.
    static uint64_t bytes(const Model& model, size_t window);

    // [window, rope_dimensions / 2]; empty without rotary positions.
    std::span<const float> cosines() const { return {cosines_, angles_}; }
    std::span<const float> sines() const { return {sines_, angles_}; }

    // Fills the tables of angles. Once, when the arena has memory.
    void prepare();
    void clear() { length_ = 0; }
    // The tokens of a pass are part of the sequence, in all blocks.
    void advance(size_t tokens) { length_ += tokens; }

    // Attention of `tokens` new tokens behind the cached ones, and their keys and values into the cache.
    // qkv: [tokens, row_stride], queries and keys are rotated in place; mix: [tokens, query_width].
    void attend(const PreparedBlock& block, float* qkv, size_t tokens, float* mix);

   private:
    struct Layer {
        float *keys, *values;  // [kv_heads, window, head_dimension]
    };
    void rotate(float* head, size_t position) const;
    void store(const PreparedBlock& block, float* qkv, size_t tokens);

    const Model& model_;
    size_t window_, length_ = 0;
    int threads_;
    std::pmr::vector<Layer> layers_;  // one a block with attention
    float* end_ = nullptr;            // 16 floats behind the last layer
    size_t scratch_floats_ = 0;       // of a thread
    bool reads_past_rows_ = false;
    size_t angles_ = 0;
    float *cosines_ = nullptr, *sines_ = nullptr;  // [window, rope_dimensions / 2]
    float* scratch_ = nullptr;                     // [threads, cached_attention_scratch]
};

}  // namespace espalier
