// Attention in bfloat16 on tensor cores, in one pass over the keys (arXiv 2307.08691): a warp has 16 queries,
// and their scores, weights and sums never leave its registers. A row's largest score so far is taken from
// its exponents; where a later key has a larger one, what was summed is scaled down.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/product.cuh"

namespace espalier::cuda {
namespace {

struct Heads {
    const bf16* qkv;
    bf16* out;
    const uint32_t* offsets;
    uint32_t heads, kv_heads, dimension;
    float scale;  // of scores, for powers of two
};

constexpr uint32_t query_rows = 64, key_rows = 64;
constexpr unsigned attention_threads = query_rows / 16 * 32;

// Over the four neighbouring lanes that share a row.
__device__ inline float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ inline float row_sum(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

__device__ inline uint32_t packed(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}
// Sums as the left factor of another product.
__device__ inline Piece as_left(const Sums& s) {
    const auto& v = s.values;
    return {{packed(v[0][0], v[0][1]), packed(v[0][2], v[0][3]), packed(v[1][0], v[1][1]),
             packed(v[1][2], v[1][3])}};
}

// A block: 64 queries of one head of one sequence. depth: the head dimension in sixteens, rounded up.
template <uint32_t depth>
__global__ void __launch_bounds__(attention_threads) attend_tokens(const Heads h) {
    constexpr uint32_t stride = depth * 16 + 8, vectors = depth * 2;
    __shared__ __align__(16) bf16 queries[query_rows * stride];
    __shared__ __align__(16) bf16 keys[2][key_rows * stride], values[2][key_rows * stride];
    const uint32_t start = h.offsets[blockIdx.x], length = h.offsets[blockIdx.x + 1] - start,
                   first = blockIdx.y * query_rows, head = blockIdx.z, lane = threadIdx.x % 32,
                   warp = threadIdx.x / 32;
    if (first >= length) return;
    const uint32_t token = (h.heads + 2 * h.kv_heads) * h.dimension, kv = head / (h.heads / h.kv_heads);
    const bf16* query = h.qkv + size_t{start} * token + head * h.dimension;
    const bf16* key = h.qkv + size_t{start} * token + (h.heads + kv) * h.dimension;
    const bf16* value = key + h.kv_heads * h.dimension;
    const auto copy = [&](bf16* to, const bf16* from, uint32_t begin) {
#pragma unroll
        for (uint32_t i = threadIdx.x; i < 64 * vectors; i += attention_threads) {
            const uint32_t r = i / vectors, c = i % vectors * 8;
            copy_async(to + r * stride + c, from + size_t{begin + r} * token + c,
                       begin + r < length && c < h.dimension);
        }
    };
    const auto fetch = [&](uint32_t tile) {
        if (tile * key_rows < length) {
            copy(keys[tile % 2], key, tile * key_rows);
            copy(values[tile % 2], value, tile * key_rows);
        }
        __pipeline_commit();
    };
    copy(queries, query, first);
    fetch(0);
    Piece q[depth];
    Sums mix[depth];
#pragma unroll
    for (uint32_t d = 0; d < depth; ++d)
        mix[d].clear();
    // Of rows lane / 4 and lane / 4 + 8: the largest scaled score, and the sum of powers.
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    for (uint32_t tile = 0; tile * key_rows < length; ++tile) {
        fetch(tile + 1);
        __pipeline_wait_prior(1);
        __syncthreads();
        if (tile == 0) {
#pragma unroll
            for (uint32_t d = 0; d < depth; ++d)
                q[d] = load_left(queries + warp * 16 * stride + 16 * d, stride);
        }
        const bf16* k = keys[tile % 2];
        const bf16* v = values[tile % 2];
        Sums scores[key_rows / 16];
#pragma unroll
        for (uint32_t j = 0; j < key_rows / 16; ++j) {
            scores[j].clear();
#pragma unroll
            for (uint32_t d = 0; d < depth; ++d)
                scores[j].add(q[d], load_right_by_column(k + 16 * j * stride + 16 * d, stride));
        }
        const uint32_t count = min(key_rows, length - tile * key_rows);
        float top[2] = {largest[0], largest[1]};
#pragma unroll
        for (uint32_t j = 0; j < key_rows / 16; ++j) {
#pragma unroll
            for (uint32_t i = 0; i < 8; ++i) {
                float& s = scores[j].values[i / 4][i % 4];
                const bool there = 16 * j + i / 4 * 8 + lane % 4 * 2 + i % 2 < count;
                s = there ? s * h.scale : -INFINITY;
                top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s);
            }
        }
        float less[2], sum[2] = {0, 0};
#pragma unroll
        for (uint32_t r = 0; r < 2; ++r) {
            top[r] = row_max(top[r]);
            less[r] = exp2f(largest[r] - top[r]);
            largest[r] = top[r];
        }
#pragma unroll
        for (uint32_t d = 0; d < depth; ++d)
#pragma unroll
            for (uint32_t i = 0; i < 8; ++i)
                mix[d].values[i / 4][i % 4] *= less[i / 2 % 2];
#pragma unroll
        for (uint32_t j = 0; j < key_rows / 16; ++j) {
#pragma unroll
            for (uint32_t i = 0; i < 8; ++i) {
                float& s = scores[j].values[i / 4][i % 4];
                s = exp2f(s - largest[i / 2 % 2]);
                sum[i / 2 % 2] += s;
            }
            const Piece weights = as_left(scores[j]);
#pragma unroll
            for (uint32_t d = 0; d < depth; ++d)
                mix[d].add(weights, load_right(v + 16 * j * stride + 16 * d, stride));
        }
#pragma unroll
        for (uint32_t r = 0; r < 2; ++r)
            total[r] = total[r] * less[r] + row_sum(sum[r]);
        __syncthreads();  // before the tile after the next one is copied
    }
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
        bf16* out = queries + (warp * 16 + lane / 4 + 8 * r) * stride;
        const float share = 1.0F / total[r];
#pragma unroll
        for (uint32_t c = 0; c < 2 * depth; ++c) {
            const uint32_t column = c * 8 + lane % 4 * 2;
            const float(&pair)[4] = mix[c / 2].values[c % 2];
            *reinterpret_cast<uint32_t*>(out + column) = packed(pair[2 * r] * share, pair[2 * r + 1] * share);
        }
    }
    // A warp's own rows, where its queries were: 16 bytes at once from there.
    __syncwarp();
#pragma unroll
    for (uint32_t i = lane; i < 16 * vectors; i += 32) {
        const uint32_t r = warp * 16 + i / vectors, c = i % vectors * 8;
        if (first + r < length && c < h.dimension)
            *reinterpret_cast<uint4*>(h.out + (size_t{start + first + r} * h.heads + head) * h.dimension +
                                      c) = *reinterpret_cast<const uint4*>(queries + r * stride + c);
    }
}

}  // namespace

void attend_bf16(const AttentionCall& call) {
    const Heads heads{static_cast<const bf16*>(call.qkv),
                      static_cast<bf16*>(call.out),
                      call.offsets,
                      static_cast<uint32_t>(call.heads),
                      static_cast<uint32_t>(call.kv_heads),
                      static_cast<uint32_t>(call.head_dimension),
                      call.scale * 1.44269504F};
    const dim3 grid(static_cast<unsigned>(call.sequences), blocks_for(call.longest, query_rows), heads.heads);
    switch ((call.head_dimension + 15) / 16) {
        case 1:
            attend_tokens<1><<<grid, attention_threads, 0, call.stream>>>(heads);
            break;
        case 2:
            attend_tokens<2><<<grid, attention_threads, 0, call.stream>>>(heads);
            break;
        case 3:
            attend_tokens<3><<<grid, attention_threads, 0, call.stream>>>(heads);
            break;
        default:
            attend_tokens<4><<<grid, attention_threads, 0, call.stream>>>(heads);
    }
    check_launch("attend_tokens");
}

}  // namespace espalier::cuda
