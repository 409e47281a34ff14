// Attention of one token over its cache, in two launches: blocks take 64 keys each of one head of keys and
// all queries that share it, so that keys and values are read once and by many processors (as "Flash-Decoding
// for long-context inference", Dao et al., 2023); then what they found is put together, head by head.
#include "kernels/cuda/cached_attention.h"
#include "kernels/cuda/early.cuh"
#include "kernels/cuda/numbers.cuh"

namespace espalier::cuda {
namespace {

constexpr unsigned newest_threads = 128, warps = newest_threads / 32;
constexpr uint32_t widest = widest_cached_head, lane_values = 8, key_lanes = widest / lane_values,
                   keys_at_once = newest_threads / key_lanes;
static_assert(split_keys == 64);

struct Newest {
    const void *queries, *keys, *values;
    void* out;
    const int32_t* place;
    // Of head h and split s, at h * splits + s: weighted values, [dimension], the largest score, the weights'
    // sum.
    float *mixes, *tops, *totals;
    size_t window;
    uint32_t heads, sharing, dimension, splits;
    float scale;
};

struct Eight {
    float values[lane_values];
};
__device__ inline Eight load_eight(const float* from) {
    const float4 a = load_four_values(from), b = load_four_values(from + 4);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ inline Eight load_eight(const bf16* from) {
    const Vector<bf16> v = load_vector(from);
    Eight e;
#pragma unroll
    for (uint32_t i = 0; i < lane_values; ++i)
        e.values[i] = v.values[i];
    return e;
}

// A block: 64 keys, and up to `group` queries that share them.
template <class T, uint32_t group>
__global__ void __launch_bounds__(newest_threads) attend_split(const Newest n) {
    __shared__ float scores[group][split_keys];
    __shared__ __align__(16) float mixes[warps][group][widest];
    let_next_begin();
    wait_for_previous();
    const uint32_t length = static_cast<uint32_t>(*n.place) + 1, split = blockIdx.x,
                   begin = split * static_cast<uint32_t>(split_keys);
    if (begin >= length) return;
    const uint32_t count = min(static_cast<uint32_t>(split_keys), length - begin),
                   groups = (n.sharing + group - 1) / group, kv = blockIdx.y / groups,
                   inside = blockIdx.y % groups * group, queries = min(group, n.sharing - inside),
                   head = kv * n.sharing + inside, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const size_t at = (kv * n.window + begin) * n.dimension;
    const T* keys = static_cast<const T*>(n.keys) + at;
    const T* values = static_cast<const T*>(n.values) + at;

    // Sixteen lanes a key, eight components each.
    const uint32_t column = threadIdx.x % key_lanes * lane_values;
    const bool has_column = column < n.dimension;
    float q[group][lane_values];
#pragma unroll
    for (uint32_t g = 0; g < group; ++g) {
        Eight e{};
        if (has_column && g < queries)
            e = load_eight(static_cast<const T*>(n.queries) + (head + g) * n.dimension + column);
#pragma unroll
        for (uint32_t i = 0; i < lane_values; ++i)
            q[g][i] = e.values[i] * n.scale;
    }
#pragma unroll 4
    for (uint32_t k = threadIdx.x / key_lanes; k < split_keys; k += keys_at_once) {
        Eight key{};
        if (has_column && k < count) key = load_eight(keys + k * n.dimension + column);
#pragma unroll
        for (uint32_t g = 0; g < group; ++g) {
            float sum = 0;
#pragma unroll
            for (uint32_t i = 0; i < lane_values; ++i)
                sum += q[g][i] * key.values[i];
#pragma unroll
            for (int distance = key_lanes / 2; distance > 0; distance /= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, distance);
            if (column == 0) scores[g][k] = k < count ? sum : -INFINITY;
        }
    }
    __syncthreads();
    for (uint32_t g = warp; g < group; g += warps) {
        const float a = scores[g][lane], b = scores[g][lane + 32], top = warp_max(fmaxf(a, b)),
                    weight_a = expf(a - top), weight_b = expf(b - top), total = warp_sum(weight_a + weight_b);
        scores[g][lane] = weight_a;
        scores[g][lane + 32] = weight_b;
        if (lane == 0 && g < queries) {
            n.tops[(head + g) * n.splits + split] = top;
            n.totals[(head + g) * n.splits + split] = total;
        }
    }
    __syncthreads();

    // A warp a quarter of the values, four columns a lane.
    constexpr uint32_t of_warp = split_keys / warps;
    float4 mix[group];
#pragma unroll
    for (uint32_t g = 0; g < group; ++g)
        mix[g] = make_float4(0, 0, 0, 0);
#pragma unroll 8
    for (uint32_t i = 0; i < of_warp; ++i) {
        const uint32_t k = warp * of_warp + i;
        if (k >= count || lane * 4 >= n.dimension) continue;
        const float4 v = load_four_values(values + k * n.dimension + lane * 4);
#pragma unroll
        for (uint32_t g = 0; g < group; ++g) {
            const float weight = scores[g][k];
            mix[g].x += weight * v.x;
            mix[g].y += weight * v.y;
            mix[g].z += weight * v.z;
            mix[g].w += weight * v.w;
        }
    }
#pragma unroll
    for (uint32_t g = 0; g < group; ++g)
        store_four_values(mixes[warp][g] + lane * 4, mix[g]);
    __syncthreads();
    const uint32_t c = threadIdx.x;
    for (uint32_t g = 0; g < queries && c < n.dimension; ++g) {
        float sum = 0;
#pragma unroll
        for (uint32_t w = 0; w < warps; ++w)
            sum += mixes[w][g][c];
        n.mixes[(size_t{head + g} * n.splits + split) * n.dimension + c] = sum;
    }
}

// A block a head; a warp every fourth split.
template <class T>
__global__ void __launch_bounds__(newest_threads) join_splits(const Newest n) {
    __shared__ __align__(16) float mixes[warps][widest];
    __shared__ float totals[warps];
    let_next_begin();
    wait_for_previous();
    const uint32_t used = (static_cast<uint32_t>(*n.place) + split_keys) / split_keys,
                   lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.x;
    const float* tops = n.tops + head * n.splits;
    float top = -INFINITY;
    for (uint32_t s = lane; s < used; s += 32)
        top = fmaxf(top, tops[s]);
    top = warp_max(top);
    float total = 0;
    float4 mix = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (uint32_t s = warp; s < used; s += warps) {
        const size_t at = size_t{head} * n.splits + s;
        const float share = expf(n.tops[at] - top);
        total += share * n.totals[at];
        if (lane * 4 >= n.dimension) continue;
        const float4 v = load_four_values(n.mixes + at * n.dimension + lane * 4);
        mix.x += share * v.x;
        mix.y += share * v.y;
        mix.z += share * v.z;
        mix.w += share * v.w;
    }
    store_four_values(mixes[warp] + lane * 4, mix);
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    const uint32_t c = threadIdx.x;
    if (c >= n.dimension) return;
    float sum = 0, all = 0;
#pragma unroll
    for (uint32_t w = 0; w < warps; ++w) {
        sum += mixes[w][c];
        all += totals[w];
    }
    static_cast<T*>(n.out)[head * n.dimension + c] = narrowed<T>(sum / all);
}

template <class T>
void launch(const Newest& n, uint32_t kv_heads, bool early, cudaStream_t stream) {
    const auto split = [&](auto kernel, uint32_t group) {
        const dim3 grid(n.splits, kv_heads * ((n.sharing + group - 1) / group));
        launch_early(early, kernel, grid, newest_threads, stream, n);
    };
    if (n.sharing == 1) {
        split(attend_split<T, 1>, 1);
    } else if (n.sharing <= 4) {
        split(attend_split<T, 4>, 4);
    } else {
        split(attend_split<T, 8>, 8);
    }
    launch_early(early, join_splits<T>, n.heads, newest_threads, stream, n);
}

size_t splits_of(size_t seen) {
    return (seen + split_keys - 1) / split_keys;
}

}  // namespace

size_t newest_floats(size_t heads, size_t head_dimension, size_t seen) {
    return heads * splits_of(seen) * (head_dimension + 2);
}

void attend_newest(const CachedHeads& h, const NewTokens& t, cudaStream_t stream) {
    const size_t splits = splits_of(t.seen), rows = h.heads * splits;
    Newest n{};
    n.queries = t.queries;
    n.keys = h.keys;
    n.values = h.values;
    n.out = t.out;
    n.place = t.places;
    n.mixes = t.scratch;
    n.tops = n.mixes + rows * h.head_dimension;
    n.totals = n.tops + rows;
    n.window = h.window;
    n.heads = static_cast<uint32_t>(h.heads);
    n.sharing = static_cast<uint32_t>(h.heads / h.kv_heads);
    n.dimension = static_cast<uint32_t>(h.head_dimension);
    n.splits = static_cast<uint32_t>(splits);
    n.scale = h.scale;
    const auto kv_heads = static_cast<uint32_t>(h.kv_heads);
    if (h.type == TensorType::f32) {
        launch<float>(n, kv_heads, t.early, stream);
    } else {
        launch<bf16>(n, kv_heads, t.early, stream);
    }
}

}  // namespace espalier::cuda
