// Scaled dot-product attention of one head over one sequence (arXiv 1706.03762, section 3.2.1), on a packed
// query|key|value buffer: no per-head copies but the transposed keys.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/checked.h"

namespace espalier {

struct AttentionShape {
    size_t heads = 0, kv_heads = 0, head_dimension = 0;
    float scale = 0;  // scores are multiplied by it before the softmax

    size_t query_width() const { return heads * head_dimension; }
    size_t row_stride() const { return (heads + 2 * kv_heads) * head_dimension; }
    // Whether kernels on bfloat16 take this shape: they pack whole vectors.
    bool fits_narrow() const { return head_dimension % 16 == 0; }
};

// Query rows whose scores are held at once: a multiple of every kernel's tile height (6 and 4), small enough
// that the scores of a 512-token sequence (24 KiB) stay in the first-level cache.
inline constexpr size_t attention_query_block = 12;
// Keys are padded to a multiple of this, the widest tile of any kernel.
inline constexpr size_t attention_key_multiple = 64;

// Floats of scratch for a sequence of at most `tokens` tokens: transposed keys and scores; with bfloat16
// packed keys and values, scores, and half as many words again for the softmax's weights; in 8 bits less.
inline size_t attention_scratch(const AttentionShape& shape, size_t tokens) {
    return (shape.head_dimension + attention_query_block * 3 / 2) * round_up(tokens, attention_key_multiple);
}

// qkv: [tokens, row_stride] float32, a row being all queries, all keys, all values, head by head; reading
// up to 64 floats past its end must be allowed. out: [tokens, query_width], the columns of `head` are
// written. scratch: attention_scratch floats, for this call only.
using AttentionKernel = void (*)(const AttentionShape& shape, const float* qkv, size_t tokens, size_t head,
                                 float* out, float* scratch);

// The same on bfloat16 (reading past the end as above, in bytes), for shapes that fit. The softmax is
// float32; products are of bfloat16, or of 8 bits, into which the kernel rounds.
using NarrowAttentionKernel = void (*)(const AttentionShape& shape, const uint16_t* qkv, size_t tokens,
                                       size_t head, float* out, float* scratch);

// What one head of a decoder has seen: keys and values of `length` tokens, [length, dimension] each, as a
// cache keeps them.
struct CachedHead {
    const float* keys = nullptr;
    const float* values = nullptr;
    size_t length = 0, dimension = 0;
};

// Floats of scratch for a cache of at most `tokens` tokens: scores and the query with zeros behind; of many
// queries scores of a block and transposed keys.
inline size_t cached_attention_scratch(size_t tokens, size_t dimension) {
    return round_up(tokens, 16) * (attention_query_block + dimension) + round_up(dimension, 16);
}

// One query, [dimension], against all of it: causal attention of the newest token. out: [dimension].
// scratch: cached_attention_scratch floats at a multiple of 64 bytes. Where dimension is no multiple of 16,
// 15 floats past the last key and value are read; they must be finite, and change nothing.
using CachedAttentionKernel = void (*)(const CachedHead& seen, const float* query, float scale, float* out,
                                       float* scratch);

// The newest `count` tokens' queries, and where their results go; rows `stride` and `out_stride` apart.
struct CachedQueries {
    const float* first = nullptr;
    size_t stride = 0, count = 0;
    float* out = nullptr;
    size_t out_stride = 0;
};
// All of them together: each sees the tokens up to its own. For the rest as above.
using CachedQueriesKernel = void (*)(const CachedHead& seen, const CachedQueries& queries, float scale,
                                     float* scratch);

}  // namespace espalier
