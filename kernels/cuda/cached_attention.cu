// What is turned and stored, and attention of several tokens in float32 (in bfloat16: attention_products.cu).
#include "kernels/cuda/cached_attention.h"

#include "kernels/cuda/early.cuh"
#include "kernels/cuda/numbers.cuh"

namespace espalier::cuda {
namespace {

constexpr unsigned head_threads = 128;  // a thread a component
static_assert(head_threads >= widest_cached_head);

struct Stored {
    const float* qkv;
    const int32_t* places;
    const float *cosines, *sines;
    void *queries, *keys, *values;
    size_t window;
    uint32_t heads, kv_heads, dimension, turning;
    bool neighbours;
};

// Component c of a head that turns.
__device__ inline float turned(const Stored& s, const float* head, uint32_t c, size_t place) {
    const uint32_t pairs = s.turning / 2, i = s.neighbours ? c / 2 : c % pairs;
    const float cosine = s.cosines[place * pairs + i], sine = s.sines[place * pairs + i];
    const float a = head[s.neighbours ? 2 * i : i], b = head[s.neighbours ? 2 * i + 1 : i + pairs];
    const bool first = s.neighbours ? c % 2 == 0 : c < pairs;
    return first ? a * cosine - b * sine : b * cosine + a * sine;
}

// A block a head of queries, keys or values, and token.
template <class T>
__global__ void __launch_bounds__(head_threads) store_heads(const Stored s) {
    let_next_begin();
    wait_for_previous();
    const uint32_t head = blockIdx.x, c = threadIdx.x;
    const size_t token = blockIdx.y, place = static_cast<size_t>(s.places[token]);
    if (c >= s.dimension) return;
    const float* from = s.qkv + (token * (s.heads + 2 * s.kv_heads) + head) * s.dimension;
    const bool turns = s.cosines != nullptr && c < s.turning && head < s.heads + s.kv_heads;
    const T value = narrowed<T>(turns ? turned(s, from, c, place) : from[c]);
    if (head < s.heads) {
        static_cast<T*>(s.queries)[(token * s.heads + head) * s.dimension + c] = value;
    } else if (head < s.heads + s.kv_heads) {
        static_cast<T*>(s.keys)[((head - s.heads) * s.window + place) * s.dimension + c] = value;
    } else {
        static_cast<T*>(s.values)[((head - s.heads - s.kv_heads) * s.window + place) * s.dimension + c] =
            value;
    }
}

struct Prompt {
    const float *queries, *keys, *values;
    float* out;
    const int32_t* places;
    size_t window;
    uint32_t heads, sharing, dimension, tokens;
    float scale;
};

constexpr uint32_t prompt_queries = 16, prompt_keys = 32, warp_queries = 4;
constexpr unsigned prompt_threads = prompt_queries / warp_queries * 32;
constexpr uint32_t prompt_columns = widest_cached_head / 32;  // of a lane

// Rows, 16 bytes at a time, times `scale`, zeros behind the last of them.
__device__ inline void copy_rows(float* to, uint32_t stride, const float* from, size_t from_stride,
                                 uint32_t rows, uint32_t there, uint32_t dimension, float scale) {
    const uint32_t vectors = dimension / 4;
    for (uint32_t i = threadIdx.x; i < rows * vectors; i += prompt_threads) {
        const uint32_t r = i / vectors, c = i % vectors * 4;
        float4 v = make_float4(0, 0, 0, 0);
        if (r < there) v = load_four_values(from + r * from_stride + c);
        store_four_values(to + r * stride + c,
                          make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale));
    }
}

// A block: 16 queries of a head, four a warp, over 32 keys at a time. A lane has a key's scores, and then
// every 32nd column of what is mixed.
__global__ void __launch_bounds__(prompt_threads) attend_floats(const Prompt p) {
    extern __shared__ float4 shared[];
    const uint32_t stride = p.dimension + 4, lane = threadIdx.x % 32, warp = threadIdx.x / 32,
                   first = blockIdx.x * prompt_queries, head = blockIdx.y;
    float* const queries = reinterpret_cast<float*>(shared);
    float* const keys = queries + prompt_queries * stride;
    float* const values = keys + prompt_keys * stride;
    const uint32_t count = min(prompt_queries, p.tokens - first),
                   before = static_cast<uint32_t>(p.places[0]) + first, length = before + count;
    const size_t kv = size_t{head / p.sharing} * p.window * p.dimension;
    copy_rows(queries, stride, p.queries + (size_t{first} * p.heads + head) * p.dimension,
              size_t{p.heads} * p.dimension, prompt_queries, count, p.dimension, p.scale);
    float mix[warp_queries][prompt_columns] = {}, top[warp_queries], total[warp_queries] = {};
#pragma unroll
    for (uint32_t r = 0; r < warp_queries; ++r)
        top[r] = -INFINITY;
    for (uint32_t begin = 0; begin < length; begin += prompt_keys) {
        __syncthreads();
        const uint32_t there = min(prompt_keys, length - begin);
        const size_t at = kv + size_t{begin} * p.dimension;
        copy_rows(keys, stride, p.keys + at, p.dimension, prompt_keys, there, p.dimension, 1);
        copy_rows(values, stride, p.values + at, p.dimension, prompt_keys, there, p.dimension, 1);
        __syncthreads();
        float weight[warp_queries] = {};
        for (uint32_t c = 0; c < p.dimension; c += 4) {
            const float4 k = load_four_values(keys + lane * stride + c);
#pragma unroll
            for (uint32_t r = 0; r < warp_queries; ++r) {
                const float4 q = load_four_values(queries + (warp * warp_queries + r) * stride + c);
                weight[r] += q.x * k.x + q.y * k.y + q.z * k.z + q.w * k.w;
            }
        }
#pragma unroll
        for (uint32_t r = 0; r < warp_queries; ++r) {
            // The first key is seen by all, so that the largest is a number from the first tile on.
            const float score = begin + lane <= before + warp * warp_queries + r ? weight[r] : -INFINITY;
            const float largest = fmaxf(top[r], warp_max(score)), less = expf(top[r] - largest);
            weight[r] = expf(score - largest);
            total[r] = total[r] * less + warp_sum(weight[r]);
            top[r] = largest;
#pragma unroll
            for (uint32_t j = 0; j < prompt_columns; ++j)
                mix[r][j] *= less;
        }
        for (uint32_t k = 0; k < there; ++k) {
            float share[warp_queries];
#pragma unroll
            for (uint32_t r = 0; r < warp_queries; ++r)
                share[r] = __shfl_sync(0xffffffffu, weight[r], static_cast<int>(k));
#pragma unroll
            for (uint32_t j = 0; j < prompt_columns; ++j) {
                if (lane + 32 * j >= p.dimension) continue;
                const float v = values[k * stride + lane + 32 * j];
#pragma unroll
                for (uint32_t r = 0; r < warp_queries; ++r)
                    mix[r][j] += share[r] * v;
            }
        }
    }
#pragma unroll
    for (uint32_t r = 0; r < warp_queries; ++r) {
        const uint32_t row = warp * warp_queries + r;
        if (row >= count) continue;
        float* out = p.out + (size_t{first + row} * p.heads + head) * p.dimension;
#pragma unroll
        for (uint32_t j = 0; j < prompt_columns; ++j) {
            if (lane + 32 * j < p.dimension) out[lane + 32 * j] = mix[r][j] / total[r];
        }
    }
}

void attend_prompt_floats(const CachedHeads& h, const NewTokens& t, cudaStream_t stream) {
    const Prompt prompt{static_cast<const float*>(t.queries),
                        static_cast<const float*>(h.keys),
                        static_cast<const float*>(h.values),
                        static_cast<float*>(t.out),
                        t.places,
                        h.window,
                        static_cast<uint32_t>(h.heads),
                        static_cast<uint32_t>(h.heads / h.kv_heads),
                        static_cast<uint32_t>(h.head_dimension),
                        static_cast<uint32_t>(t.tokens),
                        h.scale};
    const size_t bytes = (prompt_queries + 2 * prompt_keys) * (h.head_dimension + 4) * sizeof(float);
    const dim3 grid(blocks_for(t.tokens, prompt_queries), prompt.heads);
    attend_floats<<<grid, prompt_threads, bytes, stream>>>(prompt);
    check_launch("attend_floats");
}

}  // namespace

void store(const CachedHeads& h, const Rotation& rotation, const NewTokens& t, cudaStream_t stream) {
    const Stored stored{t.qkv,
                        t.places,
                        rotation.cosines,
                        rotation.sines,
                        t.queries,
                        h.keys,
                        h.values,
                        h.window,
                        static_cast<uint32_t>(h.heads),
                        static_cast<uint32_t>(h.kv_heads),
                        static_cast<uint32_t>(h.head_dimension),
                        static_cast<uint32_t>(rotation.dimensions),
                        rotation.neighbours};
    const dim3 grid(stored.heads + 2 * stored.kv_heads, static_cast<unsigned>(t.tokens));
    launch_early(t.early, h.type == TensorType::f32 ? store_heads<float> : store_heads<bf16>, grid,
                 head_threads, stream, stored);
}

void attend(const CachedHeads& heads, const NewTokens& tokens, cudaStream_t stream) {
    if (tokens.tokens == 1) {
        attend_newest(heads, tokens, stream);
    } else if (heads.type == TensorType::f32) {
        attend_prompt_floats(heads, tokens, stream);
    } else {
        attend_prompt_bf16(heads, tokens, stream);
    }
}

}  // namespace espalier::cuda
