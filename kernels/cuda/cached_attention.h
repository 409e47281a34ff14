// Attention of a decoder's new tokens over the keys and values of all before them (kernels/attention:
// CachedHead). A cache has them in the type of the products: float32, or bfloat16. Softmax is float32.
//
// Where the sequence stands is read on the device, so that launches can be recorded once and launched again
// for token after token; what a launch is laid out for is a bound, `seen`.
#pragma once

#include "base/types.h"
#include "kernels/cuda/device.h"

namespace espalier::cuda {

inline constexpr size_t widest_cached_head = 128;

struct CachedHeads {
    size_t heads = 0, kv_heads = 0, head_dimension = 0;  // a multiple of 8, at most widest_cached_head
    float scale = 0;
    TensorType type = TensorType::f32;        // of cache, queries and out
    void *keys = nullptr, *values = nullptr;  // [kv_heads, window, head_dimension]
    size_t window = 0;
};

// Which components of a head turn together, and how far at each place (runtime/kv_cache.h).
struct Rotation {
    const float *cosines = nullptr, *sines = nullptr;  // [window, dimensions / 2]; null: nothing turns
    size_t dimensions = 0;
    bool neighbours = false;  // 2i and 2i + 1; else i and i + dimensions / 2
};

struct NewTokens {
    const float* qkv = nullptr;       // [tokens, (heads + 2 kv_heads) head_dimension]
    const int32_t* places = nullptr;  // [tokens] in the sequence, one behind the other
    size_t tokens = 0;
    size_t seen = 0;           // no place is beyond it
    void* queries = nullptr;   // [tokens, heads head_dimension], written by store()
    void* out = nullptr;       // likewise, by attend()
    float* scratch = nullptr;  // newest_floats(…)
    bool early = false;        // early.cuh; of one token
};

// Queries are turned into `queries`, keys into the cache, where values go too.
void store(const CachedHeads& heads, const Rotation& rotation, const NewTokens& tokens, cudaStream_t stream);
// Every token sees those up to its own place.
void attend(const CachedHeads& heads, const NewTokens& tokens, cudaStream_t stream);

// Scratch of one token that sees at most `seen`: its keys are shared out in splits.
inline constexpr size_t split_keys = 64;
size_t newest_floats(size_t heads, size_t head_dimension, size_t seen);

// The parts of attend(): one token; several, in float32 and in bfloat16.
void attend_newest(const CachedHeads& heads, const NewTokens& tokens, cudaStream_t stream);
void attend_prompt_bf16(const CachedHeads& heads, const NewTokens& tokens, cudaStream_t stream);

}  // namespace espalier::cuda
