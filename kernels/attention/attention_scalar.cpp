// The specification of attention.
#include <cmath>

#include "kernels/cpu/scalar.h"

namespace espalier::scalar {

void attention(const AttentionShape& s, const float* qkv, size_t tokens, size_t head, float* out,
               float* scratch) {
    const size_t d = s.head_dimension, stride = s.row_stride();
    const size_t kv_head = head / (s.heads / s.kv_heads);
    const float* queries = qkv + head * d;
    const float* keys = qkv + (s.heads + kv_head) * d;
    const float* values = qkv + (s.heads + s.kv_heads + kv_head) * d;
    float* scores = scratch;
    for (size_t i = 0; i < tokens; ++i) {
        float largest = -INFINITY;
        for (size_t j = 0; j < tokens; ++j) {
            float dot = 0;
            for (size_t c = 0; c < d; ++c)
                dot += queries[i * stride + c] * keys[j * stride + c];
            scores[j] = dot * s.scale;
            if (scores[j] > largest) largest = scores[j];
        }
        float sum = 0;
        for (size_t j = 0; j < tokens; ++j)
            sum += scores[j] = std::exp(scores[j] - largest);
        float* row = out + i * s.query_width() + head * d;
        for (size_t c = 0; c < d; ++c)
            row[c] = 0;
        for (size_t j = 0; j < tokens; ++j) {
            for (size_t c = 0; c < d; ++c)
                row[c] += scores[j] * values[j * stride + c];
        }
        for (size_t c = 0; c < d; ++c)
            row[c] /= sum;
    }
}

void cached_attention(const CachedHead& seen, const float* query, float scale, float* out, float* scratch) {
    const size_t d = seen.dimension;
    float* scores = scratch;
    float largest = -INFINITY;
    for (size_t j = 0; j < seen.length; ++j) {
        float dot = 0;
        for (size_t c = 0; c < d; ++c)
            dot += query[c] * seen.keys[j * d + c];
        scores[j] = dot * scale;
        if (scores[j] > largest) largest = scores[j];
    }
    float sum = 0;
    for (size_t j = 0; j < seen.length; ++j)
        sum += scores[j] = std::exp(scores[j] - largest);
    for (size_t c = 0; c < d; ++c)
        out[c] = 0;
    for (size_t j = 0; j < seen.length; ++j) {
        for (size_t c = 0; c < d; ++c)
            out[c] += scores[j] * seen.values[j * d + c];
    }
    for (size_t c = 0; c < d; ++c)
        out[c] /= sum;
}

void cached_queries(const CachedHead& seen, const CachedQueries& queries, float scale, float* scratch) {
    CachedHead upto = seen;
    for (size_t i = 0; i < queries.count; ++i) {
        upto.length = seen.length - queries.count + i + 1;
        cached_attention(upto, queries.first + i * queries.stride, scale,
                         queries.out + i * queries.out_stride, scratch);
    }
}

}  // namespace espalier::scalar
