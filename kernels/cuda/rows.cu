#include "kernels/cuda/early.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/rows.h"

namespace espalier::cuda {
namespace {

constexpr unsigned block_threads = 256, warps = block_threads / 32;

__device__ inline float4 sum_of(const float4& a, const float4& b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ inline float4 vector_at(const float* row, size_t i) {
    return *reinterpret_cast<const float4*>(row + i);
}

// A warp a token.
__global__ void embed_tokens(const Embeddings e, const EmbeddedTokens t, float* x) {
    const size_t token = size_t{blockIdx.x} * warps + threadIdx.x / 32;
    if (token >= t.tokens) return;
    const auto row = [&](const float* table, const int32_t* which) {
        return table != nullptr ? table + static_cast<size_t>(which[token]) * e.hidden : nullptr;
    };
    const float *word = row(e.words, t.ids), *position = row(e.positions, t.places),
                *type = row(e.types, t.types);
    for (size_t i = threadIdx.x % 32 * 4; i < e.hidden; i += 128) {
        float4 value = vector_at(word, i);
        if (position != nullptr) value = sum_of(value, vector_at(position, i));
        if (type != nullptr) value = sum_of(value, vector_at(type, i));
        *reinterpret_cast<float4*>(x + token * e.hidden + i) = value;
    }
}

// `Threads` threads a row, each of which keeps what it read of it, up to `vectors` vectors. A warp a row
// needs no barrier, and a block of four has four of them; a block a row serves what is wider than a warp can
// keep.
constexpr unsigned norm_threads = 128;
constexpr int kept_vectors = 8;  // of 128 threads: hidden 4,096; of a warp: 1,024

template <unsigned Threads>
__device__ inline float row_sum(float value, float* shared) {
    value = warp_sum(value);
    if constexpr (Threads == 32) return value;
    __syncthreads();  // the sums before have been read
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (unsigned w = 0; w < norm_threads / 32; ++w)
        sum += shared[w];
    return sum;
}

template <int vectors, unsigned Threads>
__global__ void __launch_bounds__(norm_threads) norm_rows(const Norm n, const NormCall c) {
    __shared__ float shared[norm_threads / 32];
    let_next_begin();
    wait_for_previous();
    const size_t token = size_t{blockIdx.x} * (norm_threads / Threads) + threadIdx.x / Threads,
                 row = token * n.hidden;
    if (token >= c.tokens) return;
    const auto hidden = static_cast<float>(n.hidden);
    const unsigned first = threadIdx.x % Threads * 4;
    float4 v[vectors];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
        const size_t i = k * Threads * 4 + first;
        v[k] = make_float4(0, 0, 0, 0);
        if (i >= n.hidden) continue;
        v[k] = c.narrow ? load_four_values(static_cast<const bf16*>(c.x) + row + i)
                        : load_four_values(static_cast<const float*>(c.x) + row + i);
        if (c.residual != nullptr) v[k] = sum_of(v[k], vector_at(c.residual + row, i));
        if (c.sum != nullptr) *reinterpret_cast<float4*>(c.sum + row + i) = v[k];
        sum += v[k].x + v[k].y + v[k].z + v[k].w;
    }
    const float mean = n.rms ? 0.0F : row_sum<Threads>(sum, shared) / hidden;
    float squares = 0;
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
        if (k * Threads * 4 + first >= n.hidden) continue;
        const float a = v[k].x - mean, b = v[k].y - mean, d = v[k].z - mean, e = v[k].w - mean;
        squares += a * a + b * b + d * d + e * e;
    }
    const float scale = 1.0F / sqrtf(row_sum<Threads>(squares, shared) / hidden + n.epsilon);
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
        const size_t i = k * Threads * 4 + first;
        if (i >= n.hidden) continue;
        const float4 w = vector_at(n.weight, i);
        float4 y = make_float4((v[k].x - mean) * scale * w.x, (v[k].y - mean) * scale * w.y,
                               (v[k].z - mean) * scale * w.z, (v[k].w - mean) * scale * w.w);
        if (n.bias != nullptr) y = sum_of(y, vector_at(n.bias, i));
        *reinterpret_cast<float4*>(c.y + row + i) = y;
        if (c.rounded != nullptr) store_four_values(static_cast<bf16*>(c.rounded) + row + i, y);
    }
}

// Each thread of a grid takes every so many-th value.
template <class Work>
__global__ void each(size_t count, Work work) {
    for (size_t i = size_t{blockIdx.x} * block_threads + threadIdx.x; i < count;
         i += size_t{gridDim.x} * block_threads)
        work(i);
}

struct Add {
    const float* x;
    float* y;
    __device__ void operator()(size_t i) const { y[i] += x[i]; }
};
struct AddDifference {
    const float *x, *before;
    float* sum;
    __device__ void operator()(size_t i) const { sum[i] += x[i] - before[i]; }
};
struct Round {
    const float* x;
    bf16* y;
    __device__ void operator()(size_t i) const { y[i] = narrowed<bf16>(x[i]); }
};
struct Activate {
    Activation activation;
    float* values;
    __device__ void operator()(size_t i) const { values[i] = activated(activation, values[i]); }
};
// 16 bytes.
struct ActivateVector {
    Activation activation;
    uint4* vectors;
    __device__ void operator()(size_t i) const {
        uint4 vector = vectors[i];
        auto* pairs = reinterpret_cast<__nv_bfloat162*>(&vector);
#pragma unroll
        for (int p = 0; p < 4; ++p) {
            const float2 pair = __bfloat1622float2(pairs[p]);
            pairs[p] = __floats2bfloat162_rn(narrowly_activated(activation, pair.x),
                                             narrowly_activated(activation, pair.y));
        }
        vectors[i] = vector;
    }
};

template <class Work>
void launch(size_t count, Work work, cudaStream_t stream) {
    constexpr size_t most_blocks = 8192;
    const size_t blocks = (count + block_threads - 1) / block_threads;
    each<<<static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks), block_threads, 0, stream>>>(
        count, work);
    check_launch("rows");
}

__global__ void pool_rows(PooledToken which, const float* x, const uint32_t* offsets, uint32_t hidden,
                          float* pooled) {
    const uint32_t first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    for (uint32_t i = threadIdx.x; i < hidden; i += blockDim.x) {
        float* target = pooled + size_t{blockIdx.x} * hidden + i;
        if (which != PooledToken::mean) {
            *target = x[size_t{which == PooledToken::first ? first : end - 1} * hidden + i];
            continue;
        }
        float sum = 0;
        for (uint32_t t = first; t < end; ++t)
            sum += x[size_t{t} * hidden + i];
        *target = sum / static_cast<float>(end - first);
    }
}

}  // namespace

void embed(const Embeddings& embeddings, const EmbeddedTokens& tokens, float* x, cudaStream_t stream) {
    embed_tokens<<<blocks_for(tokens.tokens, warps), block_threads, 0, stream>>>(embeddings, tokens, x);
    check_launch("embed");
}

void normalise(const Norm& norm, const NormCall& call, cudaStream_t stream) {
    const unsigned by_warp = blocks_for(call.tokens, norm_threads / 32),
                   by_block = static_cast<unsigned>(call.tokens);
    const auto run = [&](auto kernel, unsigned blocks) {
        launch_early(call.early, kernel, blocks, norm_threads, stream, norm, call);
    };
    const size_t vectors = (norm.hidden + 127) / 128;  // of a warp's lane
    constexpr size_t few = 512;                        // tokens: more threads a row, since there are enough
    if (call.tokens <= few && norm.hidden <= 2 * 4 * norm_threads) {
        run(norm_rows<2, norm_threads>, by_block);
    } else if (vectors <= 3) {
        run(norm_rows<3, 32>, by_warp);
    } else if (vectors <= 6) {
        run(norm_rows<6, 32>, by_warp);
    } else if (vectors <= kept_vectors) {
        run(norm_rows<kept_vectors, 32>, by_warp);
    } else {
        run(norm_rows<kept_vectors, norm_threads>, by_block);
    }
}

void add(const float* x, float* y, size_t count, cudaStream_t stream) {
    launch(count, Add{x, y}, stream);
}

void add_difference(const float* x, const float* before, float* sum, size_t count, cudaStream_t stream) {
    launch(count, AddDifference{x, before, sum}, stream);
}

void round(const float* x, void* bfloats, size_t count, cudaStream_t stream) {
    launch(count, Round{x, static_cast<bf16*>(bfloats)}, stream);
}

void activate(Activation activation, TensorType type, void* values, size_t count, cudaStream_t stream) {
    if (type == TensorType::f32) {
        launch(count, Activate{activation, static_cast<float*>(values)}, stream);
    } else {
        launch(count / vector_values<bf16>, ActivateVector{activation, static_cast<uint4*>(values)}, stream);
    }
}

void pool(PooledToken which, const float* x, const uint32_t* offsets, size_t sequences, size_t hidden,
          float* pooled, cudaStream_t stream) {
    pool_rows<<<static_cast<unsigned>(sequences), block_threads, 0, stream>>>(
        which, x, offsets, static_cast<uint32_t>(hidden), pooled);
    check_launch("pool");
}

}  // namespace espalier::cuda
