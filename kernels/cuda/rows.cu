#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/rows.h"

namespace espalier::cuda {
namespace {

constexpr unsigned block_threads = 256, warps = block_threads / 32;

// A warp a token.
__global__ void embed_tokens(const Embeddings e, const EmbeddedTokens t, float* x) {
    const size_t token = size_t{blockIdx.x} * warps + threadIdx.x / 32;
    if (token >= t.tokens) return;
    const float* word = e.words + static_cast<size_t>(t.ids[token]) * e.hidden;
    const float* position =
        e.positions != nullptr ? e.positions + static_cast<size_t>(t.places[token]) * e.hidden : nullptr;
    const float* type =
        e.types != nullptr ? e.types + static_cast<size_t>(t.types[token]) * e.hidden : nullptr;
    for (size_t i = threadIdx.x % 32; i < e.hidden; i += 32) {
        float value = word[i];
        if (position != nullptr) value += position[i];
        if (type != nullptr) value += type[i];
        x[token * e.hidden + i] = value;
    }
}

// A block of `row_threads` a token; a thread keeps what it read of the row, up to kept_vectors vectors.
constexpr unsigned row_threads = 128;
constexpr int kept_vectors = 8;  // hidden 4,096

__device__ inline float block_sum(float value, float* shared) {
    value = warp_sum(value);
    __syncthreads();  // the sums before have been read
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (unsigned w = 0; w < row_threads / 32; ++w)
        sum += shared[w];
    return sum;
}

template <int vectors>
__global__ void __launch_bounds__(row_threads) norm_rows(const Norm n, const NormCall c) {
    __shared__ float shared[row_threads / 32];
    const size_t row = size_t{blockIdx.x} * n.hidden;
    const auto hidden = static_cast<float>(n.hidden);
    float4 v[vectors];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
        const size_t i = (k * row_threads + threadIdx.x) * 4;
        v[k] = make_float4(0, 0, 0, 0);
        if (i >= n.hidden) continue;
        v[k] = *reinterpret_cast<const float4*>(c.x + row + i);
        if (c.residual != nullptr) {
            const float4 r = *reinterpret_cast<const float4*>(c.residual + row + i);
            v[k].x += r.x, v[k].y += r.y, v[k].z += r.z, v[k].w += r.w;
        }
        sum += v[k].x + v[k].y + v[k].z + v[k].w;
    }
    const float mean = n.rms ? 0.0F : block_sum(sum, shared) / hidden;
    float squares = 0;
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
        if ((k * row_threads + threadIdx.x) * 4 >= n.hidden) continue;
        const float a = v[k].x - mean, b = v[k].y - mean, d = v[k].z - mean, e = v[k].w - mean;
        squares += a * a + b * b + d * d + e * e;
    }
    const float scale = 1.0F / sqrtf(block_sum(squares, shared) / hidden + n.epsilon);
#pragma unroll
    for (int k = 0; k < vectors; ++k) {
        const size_t i = (k * row_threads + threadIdx.x) * 4;
        if (i >= n.hidden) continue;
        const float4 w = *reinterpret_cast<const float4*>(n.weight + i);
        float4 y = make_float4((v[k].x - mean) * scale * w.x, (v[k].y - mean) * scale * w.y,
                               (v[k].z - mean) * scale * w.z, (v[k].w - mean) * scale * w.w);
        if (n.bias != nullptr) {
            const float4 b = *reinterpret_cast<const float4*>(n.bias + i);
            y.x += b.x, y.y += b.y, y.z += b.z, y.w += b.w;
        }
        *reinterpret_cast<float4*>(c.y + row + i) = y;
        if (c.rounded != nullptr) {
            auto* pair = reinterpret_cast<__nv_bfloat162*>(static_cast<bf16*>(c.rounded) + row + i);
            pair[0] = __floats2bfloat162_rn(y.x, y.y);
            pair[1] = __floats2bfloat162_rn(y.z, y.w);
        }
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
template <class T>
struct Activate {
    Activation activation;
    T* values;
    __device__ void operator()(size_t i) const {
        values[i] = narrowed<T>(activated(activation, widened(values[i])));
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
    const auto blocks = static_cast<unsigned>(call.tokens);
    const size_t vectors = (norm.hidden + 4 * row_threads - 1) / (4 * row_threads);
    if (vectors <= 1) {
        norm_rows<1><<<blocks, row_threads, 0, stream>>>(norm, call);
    } else if (vectors <= 2) {
        norm_rows<2><<<blocks, row_threads, 0, stream>>>(norm, call);
    } else {
        norm_rows<kept_vectors><<<blocks, row_threads, 0, stream>>>(norm, call);
    }
    check_launch("norm");
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
        launch(count, Activate<float>{activation, static_cast<float*>(values)}, stream);
    } else {
        launch(count, Activate<bf16>{activation, static_cast<bf16*>(values)}, stream);
    }
}

void pool(PooledToken which, const float* x, const uint32_t* offsets, size_t sequences, size_t hidden,
          float* pooled, cudaStream_t stream) {
    pool_rows<<<static_cast<unsigned>(sequences), block_threads, 0, stream>>>(
        which, x, offsets, static_cast<uint32_t>(hidden), pooled);
    check_launch("pool");
}

}  // namespace espalier::cuda
