// Attention in bfloat16 on tensor cores, in one pass over the keys (arXiv 2307.08691): a warp has 16 queries,
// and their scores, weights and sums never leave its registers. A row's largest score so far is taken from
// its exponents; where a later key has a larger one, what was summed is scaled down. The same for an
// encoder's packed sequences and for a decoder's new tokens, whose keys and values lie in its cache.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cached_attention.h"
#include "kernels/cuda/product.cuh"

namespace espalier::cuda {
namespace {

struct Heads {
    const bf16 *queries, *keys, *values;  // of the first head of the first token
    bf16* out;
    uint32_t query_stride, key_stride;  // from one token to the next
    size_t key_head;                    // from one head to the next
    uint32_t heads, sharing, dimension;
    float scale;              // of scores, for powers of two
    const uint32_t* offsets;  // of an encoder's sequences
    const int32_t* places;    // of a decoder's tokens
    uint32_t tokens;
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

// Queries, and twice keys and values. depth: the head dimension in sixteens, rounded up.
template <uint32_t depth>
constexpr uint32_t row_stride = depth * 16 + 8;
template <uint32_t depth>
constexpr size_t shared_bytes = (query_rows + 4 * key_rows) * row_stride<depth> * sizeof(bf16);
// More than that, a launch has to ask for.
template <uint32_t depth>
constexpr bool is_asked_for = shared_bytes<depth> > size_t{48} << 10;

template <uint32_t depth>
__device__ inline bf16* block_memory() {
    if constexpr (is_asked_for<depth>) {
        extern __shared__ uint4 asked_for[];
        return reinterpret_cast<bf16*>(asked_for);
    } else {
        __shared__ uint4 own[shared_bytes<depth> / sizeof(uint4)];
        return reinterpret_cast<bf16*>(own);
    }
}

// A block: 64 queries of one head of one sequence. Causal: a decoder's, each sees the keys up to its place.
template <uint32_t depth, bool causal>
__global__ void __launch_bounds__(attention_threads) attend_tokens(const Heads h) {
    constexpr uint32_t stride = row_stride<depth>, vectors = depth * 2, tile_values = key_rows * stride;
    bf16* const queries = block_memory<depth>();
    bf16* const keys = queries + query_rows * stride;  // of even tiles, of odd ones
    bf16* const values = keys + 2 * tile_values;
    const uint32_t start = causal ? 0 : h.offsets[blockIdx.x],
                   length = causal ? h.tokens : h.offsets[blockIdx.x + 1] - start,
                   first = blockIdx.y * query_rows, head = blockIdx.z, lane = threadIdx.x % 32,
                   warp = threadIdx.x / 32;
    if (first >= length) return;
    // Keys that a query of the block sees; those in front of the first query's own.
    const uint32_t before = causal ? static_cast<uint32_t>(h.places[0]) + first : 0,
                   seen = causal ? before + min(query_rows, length - first) : length;
    const size_t kv = head / h.sharing * h.key_head + size_t{start} * h.key_stride;
    const bf16* query = h.queries + size_t{start} * h.query_stride + head * h.dimension;
    const bf16* key = h.keys + kv;
    const bf16* value = h.values + kv;
    const auto copy = [&](bf16* to, const bf16* from, uint32_t from_stride, uint32_t begin, uint32_t end) {
#pragma unroll
        for (uint32_t i = threadIdx.x; i < 64 * vectors; i += attention_threads) {
            const uint32_t r = i / vectors, c = i % vectors * 8;
            copy_async(to + r * stride + c, from + size_t{begin + r} * from_stride + c,
                       begin + r < end && c < h.dimension);
        }
    };
    const auto fetch = [&](uint32_t tile) {
        if (tile * key_rows < seen) {
            copy(keys + tile % 2 * tile_values, key, h.key_stride, tile * key_rows, seen);
            copy(values + tile % 2 * tile_values, value, h.key_stride, tile * key_rows, seen);
        }
        __pipeline_commit();
    };
    copy(queries, query, h.query_stride, first, length);
    fetch(0);
    Piece q[depth];
    Sums mix[depth];
#pragma unroll
    for (uint32_t d = 0; d < depth; ++d)
        mix[d].clear();
    const uint32_t own = before + warp * 16 + lane / 4;  // a decoder's place of row lane / 4
    // Of rows lane / 4 and lane / 4 + 8: the largest scaled score, and the sum of powers. A first tile has a
    // key that every row sees, so that the largest is a number from there on.
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    for (uint32_t tile = 0; tile * key_rows < seen; ++tile) {
        fetch(tile + 1);
        __pipeline_wait_prior(1);
        __syncthreads();
        if (tile == 0) {
#pragma unroll
            for (uint32_t d = 0; d < depth; ++d)
                q[d] = load_left(queries + warp * 16 * stride + 16 * d, stride);
        }
        const bf16* k = keys + tile % 2 * tile_values;
        const bf16* v = values + tile % 2 * tile_values;
        Sums scores[key_rows / 16];
#pragma unroll
        for (uint32_t j = 0; j < key_rows / 16; ++j) {
            scores[j].clear();
#pragma unroll
            for (uint32_t d = 0; d < depth; ++d)
                scores[j].add(q[d], load_right_by_column(k + 16 * j * stride + 16 * d, stride));
        }
        const uint32_t count = min(key_rows, seen - tile * key_rows);
        float top[2] = {largest[0], largest[1]};
#pragma unroll
        for (uint32_t j = 0; j < key_rows / 16; ++j) {
#pragma unroll
            for (uint32_t i = 0; i < 8; ++i) {
                float& s = scores[j].values[i / 4][i % 4];
                const uint32_t column = 16 * j + i / 4 * 8 + lane % 4 * 2 + i % 2;
                const bool there =
                    column < count && (!causal || tile * key_rows + column <= own + i / 2 % 2 * 8);
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

template <uint32_t depth, bool causal>
void launch(const Heads& heads, const dim3& grid, cudaStream_t stream) {
    constexpr size_t bytes = is_asked_for<depth> ? shared_bytes<depth> : 0;
    if constexpr (is_asked_for<depth>) allow_block_memory(attend_tokens<depth, causal>, bytes);
    attend_tokens<depth, causal><<<grid, attention_threads, bytes, stream>>>(heads);
    check_launch("attend_tokens");
}

constexpr float power_of_two = 1.44269504F;  // exp(x) = 2^(x log2 e)

}  // namespace

void attend_bf16(const AttentionCall& call) {
    const size_t d = call.head_dimension, token = (call.heads + 2 * call.kv_heads) * d;
    Heads heads{};
    heads.queries = static_cast<const bf16*>(call.qkv);
    heads.keys = heads.queries + call.heads * d;
    heads.values = heads.keys + call.kv_heads * d;
    heads.out = static_cast<bf16*>(call.out);
    heads.query_stride = heads.key_stride = static_cast<uint32_t>(token);
    heads.key_head = d;
    heads.heads = static_cast<uint32_t>(call.heads);
    heads.sharing = static_cast<uint32_t>(call.heads / call.kv_heads);
    heads.dimension = static_cast<uint32_t>(d);
    heads.scale = call.scale * power_of_two;
    heads.offsets = call.offsets;
    const dim3 grid(static_cast<unsigned>(call.sequences), blocks_for(call.longest, query_rows), heads.heads);
    switch ((d + 15) / 16) {
        case 1:
            return launch<1, false>(heads, grid, call.stream);
        case 2:
            return launch<2, false>(heads, grid, call.stream);
        case 3:
            return launch<3, false>(heads, grid, call.stream);
        default:
            return launch<4, false>(heads, grid, call.stream);
    }
}

void attend_prompt_bf16(const CachedHeads& h, const NewTokens& t, cudaStream_t stream) {
    Heads heads{};
    heads.queries = static_cast<const bf16*>(t.queries);
    heads.keys = static_cast<const bf16*>(h.keys);
    heads.values = static_cast<const bf16*>(h.values);
    heads.out = static_cast<bf16*>(t.out);
    heads.query_stride = static_cast<uint32_t>(h.heads * h.head_dimension);
    heads.key_stride = static_cast<uint32_t>(h.head_dimension);
    heads.key_head = h.window * h.head_dimension;
    heads.heads = static_cast<uint32_t>(h.heads);
    heads.sharing = static_cast<uint32_t>(h.heads / h.kv_heads);
    heads.dimension = static_cast<uint32_t>(h.head_dimension);
    heads.scale = h.scale * power_of_two;
    heads.places = t.places;
    heads.tokens = static_cast<uint32_t>(t.tokens);
    const dim3 grid(1, blocks_for(t.tokens, query_rows), heads.heads);
    if (h.head_dimension <= 64) {
        launch<4, true>(heads, grid, stream);
    } else {
        launch<8, true>(heads, grid, stream);
    }
}

}  // namespace espalier::cuda
