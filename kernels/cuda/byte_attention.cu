// Attention on bfloat16 queries, keys and values that are rounded to 8 bits first, as the CPU's does
// (kernels/attention/attention_s8-inl.h defines it): one scale a token for queries and keys, one a dimension
// for values; exact sums; weights of 0 to 255 beside the largest, a number between two integers taking the
// upper as often as it is near to it. Two launches round, and in the third a warp has 16 queries: it goes
// over the keys twice, for the largest score, then for weights and sums, which never leave its registers.
#include <cstddef>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/numbers.cuh"

namespace espalier::cuda {
namespace {

constexpr uint32_t depth_step = 32;  // of one product of 8-bit integers: dimensions, or keys

__host__ __device__ constexpr size_t whole_steps(size_t count) {
    return (count + depth_step - 1) / depth_step * depth_step;
}
// Where a sequence's values begin, so that each has whole steps of keys.
__host__ __device__ constexpr size_t value_start(size_t offset, size_t sequence) {
    return whole_steps(offset) + sequence * depth_step;
}

struct ByteHeads {
    const bf16* qkv;
    float* out;
    const uint32_t* offsets;
    uint32_t heads, kv_heads, dimension, tokens, sequences;
    float scale;
    int8_t* rows;        // [tokens, heads + kv_heads, padded depth]: queries and keys
    float* row_scale;    // [tokens, heads + kv_heads]
    int8_t* values;      // [kv_heads, dimension, value_stride] in the order of products, see round_values
    float* value_scale;  // [sequences, kv_heads, dimension]
    size_t value_stride;

    __device__ uint32_t heads_of_rows() const { return heads + kv_heads; }
    __device__ size_t token_stride() const { return size_t{heads + 2 * kv_heads} * dimension; }
};

// From the largest size; as ByteScales there.
struct ByteScale {
    float scale, steps;
    __device__ explicit ByteScale(float most) {
        const bool finite = most < INFINITY;
        scale = finite ? most * (1.0F / 127.0F) : NAN;
        steps = finite && most > 1e-35F ? 127.0F / most : 0.0F;
    }
    __device__ uint32_t rounded(float value) const {
        return steps > 0 ? static_cast<uint32_t>(__float2int_rn(value * steps)) & 0xff : 0;
    }
};
// NaN counts as infinity.
__device__ inline float size_of(float value) {
    return isfinite(value) ? fabsf(value) : INFINITY;
}

constexpr unsigned round_threads = 256;

// A warp a token and head of queries or keys: two dimensions a lane.
__global__ void __launch_bounds__(round_threads) round_heads(const ByteHeads h) {
    const size_t unit = (size_t{blockIdx.x} * round_threads + threadIdx.x) / 32;
    if (unit >= size_t{h.tokens} * h.heads_of_rows()) return;
    const size_t token = unit / h.heads_of_rows(), head = unit % h.heads_of_rows();
    const uint32_t lane = threadIdx.x % 32, depth = static_cast<uint32_t>(whole_steps(h.dimension));
    const bool there = 2 * lane < h.dimension;
    float2 pair = make_float2(0, 0);
    if (there)
        pair = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(h.qkv + token * h.token_stride() +
                                                                           head * h.dimension + 2 * lane));
    const ByteScale scale(warp_max(fmaxf(size_of(pair.x), size_of(pair.y))));
    if (2 * lane < depth)
        *reinterpret_cast<uint16_t*>(h.rows + unit * depth + 2 * lane) =
            static_cast<uint16_t>(scale.rounded(pair.x) | scale.rounded(pair.y) << 8);
    if (lane == 0) h.row_scale[unit] = scale.scale;
}

// A block a sequence and head of values. 16 keys lie in the order in which a lane of the product has their
// weights: 0 1 8 9, 2 3 10 11, 4 5 12 13, 6 7 14 15.
__global__ void __launch_bounds__(round_threads) round_values(const ByteHeads h) {
    constexpr uint32_t most = widest_head, turns = round_threads / most;
    __shared__ float sizes[turns][most];
    const uint32_t start = h.offsets[blockIdx.x], length = h.offsets[blockIdx.x + 1] - start,
                   c = threadIdx.x % most, turn = threadIdx.x / most;
    const bool works = c < h.dimension;
    const bf16* from =
        h.qkv + start * h.token_stride() + (h.heads + h.kv_heads + blockIdx.y) * size_t{h.dimension} + c;
    float top = 0;
    for (uint32_t t = turn; t < length && works; t += turns)
        top = fmaxf(top, size_of(widened(from[t * h.token_stride()])));
    sizes[turn][c] = top;
    __syncthreads();
    if (!works) return;
#pragma unroll
    for (uint32_t i = 0; i < turns; ++i)
        top = fmaxf(top, sizes[i][c]);
    const ByteScale scale(top);
    const size_t row = size_t{blockIdx.y} * h.dimension + c;
    if (turn == 0) h.value_scale[size_t{blockIdx.x} * h.kv_heads * h.dimension + row] = scale.scale;
    int8_t* to = h.values + row * h.value_stride + value_start(start, blockIdx.x);
    for (uint32_t first = turn * 16; first < length; first += turns * 16) {
        uint32_t words[4] = {};
#pragma unroll
        for (uint32_t i = 0; i < 16; ++i) {
            const uint32_t t = first + i;
            const uint32_t byte = t < length ? scale.rounded(widened(from[t * h.token_stride()])) : 0;
            words[i % 8 / 2] |= byte << (i / 8 * 16 + i % 2 * 8);
        }
        *reinterpret_cast<uint4*>(to + first) = make_uint4(words[0], words[1], words[2], words[3]);
    }
    // The second half of the last step, if the sequence ends in the first.
    if (turn == 0 && (length - 1) % 32 < 16)
        *reinterpret_cast<uint4*>(to + (length - 1) / 32 * 32 + 16) = make_uint4(0, 0, 0, 0);
}

// sums += a b, 16 x 8 with a depth of 32 (PTX ISA: mma.m16n8k32). Queries are signed, weights are not.
__device__ inline void multiply_queries(int32_t (&sums)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
__device__ inline void multiply_weights(int32_t (&sums)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// 2^x for x <= 8, by the same polynomial.
__device__ inline float weight_power(float x) {
    const float bounded = fmaxf(-126.0F, x), whole = rintf(bounded), part = bounded - whole;
    const float power = fmaf(fmaf(0.23842854F, part, 0.7034491F), part, 1.00044325F);
    return power * __int_as_float((static_cast<int32_t>(whole) + 127) << 23);
}

constexpr uint32_t warps = 4, query_rows = 16 * warps, dithers = 64;

// A block: 64 queries of one head of one sequence. steps: the head dimension in 32s, rounded up.
template <uint32_t steps>
__global__ void __launch_bounds__(warps * 32) attend_rounded(const ByteHeads h) {
    constexpr uint32_t depth = steps * depth_step;
    __shared__ float dither[dithers];
    if (threadIdx.x < dithers) {
        const double product = threadIdx.x * 0.61803398874989485;
        dither[threadIdx.x] = static_cast<float>(product - floor(product));
    }
    __syncthreads();
    const uint32_t start = h.offsets[blockIdx.x], length = h.offsets[blockIdx.x + 1] - start,
                   head = blockIdx.z, kv = head / (h.heads / h.kv_heads), lane = threadIdx.x % 32,
                   row = lane / 4, four = lane % 4, first = blockIdx.y * query_rows + threadIdx.x / 32 * 16;
    if (first >= length) return;
    // A lane's queries are first + row and 8 further on; behind the last token its row again.
    const auto unit = [&](uint32_t token, uint32_t which) {
        return size_t{start + min(token, length - 1)} * h.heads_of_rows() + which;
    };
    uint32_t query[steps][4];
    float per_score[2];
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
        const size_t at = unit(first + row + 8 * r, head);
        per_score[r] = h.scale * h.row_scale[at] * 1.44269504F;
        const auto* words = reinterpret_cast<const uint32_t*>(h.rows + at * depth);
#pragma unroll
        for (uint32_t s = 0; s < steps; ++s) {
            query[s][r] = words[s * 8 + four];
            query[s][r + 2] = words[s * 8 + 4 + four];
        }
    }
    // Scores of 8 keys: of keys 2 four and the next one, for both queries. NaN where a key is not finite.
    const auto score = [&](uint32_t key, float(&scores)[4]) {
        int32_t sums[4] = {};
        const auto* words = reinterpret_cast<const uint32_t*>(h.rows + unit(key + row, h.heads + kv) * depth);
#pragma unroll
        for (uint32_t s = 0; s < steps; ++s)
            multiply_queries(sums, query[s], words[s * 8 + four], words[s * 8 + 4 + four]);
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
            scores[i] = static_cast<float>(sums[i]) * h.row_scale[unit(key + 2 * four + i % 2, h.heads + kv)];
    };
    float top[2] = {-INFINITY, -INFINITY};
    bool finite = true;
    for (uint32_t key = 0; key < length; key += 8) {
        float scores[4];
        score(key, scores);
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {  // behind the last key it again, which changes no maximum
            top[i / 2] = fmaxf(top[i / 2], scores[i]);
            finite = finite && !isnan(scores[i]);
        }
    }
    constexpr float log2_top = 7.9915218F;  // of 254.5: raised by less than 1 it is cut to 255 at most
    float offset[2];
    finite = __all_sync(0xffffffffu, finite);
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
        const float largest = top[r] * per_score[r];
        offset[r] = finite && fabsf(largest) < INFINITY ? log2_top - largest : NAN;
    }
    int32_t mix[2 * depth / 16][4] = {}, total[2] = {};
    const uint32_t tiles = h.dimension / 8;
    const int8_t* values = h.values + size_t{kv} * h.dimension * h.value_stride +
                           value_start(start, blockIdx.x) + row * h.value_stride + 4 * four;
    for (uint32_t key = 0; key < length; key += depth_step) {
        uint32_t weights[4] = {};
#pragma unroll
        for (uint32_t part = 0; part < 4; ++part) {
            float scores[4];
            score(key + 8 * part, scores);
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                const uint32_t r = i / 2, k = key + 8 * part + 2 * four + i % 2;
                const float power = weight_power(fmaf(scores[i], per_score[r], offset[r]));
                const float raised = power + dither[((first + row + 8 * r) * 19 + k) % dithers];
                const uint32_t weight = k < length ? static_cast<uint32_t>(raised) : 0;
                total[r] += static_cast<int32_t>(weight);
                weights[part / 2 * 2 + r] |= weight << (part % 2 * 16 + i % 2 * 8);
            }
        }
#pragma unroll
        for (uint32_t t = 0; t < depth / 8; ++t) {
            if (t >= tiles) break;
            const auto* words =
                reinterpret_cast<const uint32_t*>(values + size_t{t} * 8 * h.value_stride + key);
            multiply_weights(mix[t], weights, words[0], words[4]);
        }
    }
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
        total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        const uint32_t token = first + row + 8 * r;
        if (token >= length) continue;
        const float share = isnan(offset[r]) ? NAN : 1.0F / static_cast<float>(total[r]);
        const float* scale = h.value_scale + (size_t{blockIdx.x} * h.kv_heads + kv) * h.dimension + 2 * four;
        float* out = h.out + (size_t{start + token} * h.heads + head) * h.dimension + 2 * four;
#pragma unroll
        for (uint32_t t = 0; t < depth / 8; ++t) {
            if (t >= tiles) break;
            *reinterpret_cast<float2*>(out + 8 * t) =
                make_float2(static_cast<float>(mix[t][2 * r]) * scale[8 * t] * share,
                            static_cast<float>(mix[t][2 * r + 1]) * scale[8 * t + 1] * share);
        }
    }
}

// Where what is rounded lies in the scratch memory; pieces begin at multiples of 64 bytes.
struct Places {
    size_t row_scale, values, value_scale, bytes, value_stride;

    Places(size_t heads, size_t kv_heads, size_t dimension, size_t tokens, size_t sequences)
        : value_stride(value_start(tokens, sequences + 1)) {
        const auto behind = [](size_t place, size_t bytes) { return (place + bytes + 63) / 64 * 64; };
        row_scale = behind(0, tokens * (heads + kv_heads) * whole_steps(dimension));
        values = behind(row_scale, tokens * (heads + kv_heads) * sizeof(float));
        value_scale = behind(values, kv_heads * dimension * value_stride);
        bytes = behind(value_scale, sequences * kv_heads * dimension * sizeof(float));
    }
};

}  // namespace

size_t byte_attention_scratch(size_t heads, size_t kv_heads, size_t dimension, size_t tokens,
                              size_t sequences) {
    return Places(heads, kv_heads, dimension, tokens, sequences).bytes;
}

void attend_bytes(const AttentionCall& call) {
    const Places places(call.heads, call.kv_heads, call.head_dimension, call.tokens, call.sequences);
    auto* memory = static_cast<std::byte*>(call.scratch);
    ByteHeads h{};
    h.qkv = static_cast<const bf16*>(call.qkv);
    h.out = static_cast<float*>(call.out);
    h.offsets = call.offsets;
    h.heads = static_cast<uint32_t>(call.heads);
    h.kv_heads = static_cast<uint32_t>(call.kv_heads);
    h.dimension = static_cast<uint32_t>(call.head_dimension);
    h.tokens = static_cast<uint32_t>(call.tokens);
    h.sequences = static_cast<uint32_t>(call.sequences);
    h.scale = call.scale;
    h.rows = reinterpret_cast<int8_t*>(memory);
    h.row_scale = reinterpret_cast<float*>(memory + places.row_scale);
    h.values = reinterpret_cast<int8_t*>(memory + places.values);
    h.value_scale = reinterpret_cast<float*>(memory + places.value_scale);
    h.value_stride = places.value_stride;
    round_heads<<<blocks_for(call.tokens * (call.heads + call.kv_heads), round_threads / 32), round_threads,
                  0, call.stream>>>(h);
    check_launch("round_heads");
    round_values<<<dim3(static_cast<unsigned>(call.sequences), h.kv_heads), round_threads, 0, call.stream>>>(
        h);
    check_launch("round_values");
    const dim3 grid(static_cast<unsigned>(call.sequences), blocks_for(call.longest, query_rows), h.heads);
    if (call.head_dimension <= depth_step) {
        attend_rounded<1><<<grid, warps * 32, 0, call.stream>>>(h);
    } else {
        attend_rounded<2><<<grid, warps * 32, 0, call.stream>>>(h);
    }
    check_launch("attend_rounded");
}

}  // namespace espalier::cuda
