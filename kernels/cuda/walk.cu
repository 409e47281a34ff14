// Walks of any shape, and tokens grouped by where they went.
#include <algorithm>

#include "kernels/cuda/walk.cuh"

namespace espalier::cuda {
namespace {

constexpr unsigned block_threads = 512, warps = block_threads / 32;
// A subtree of as many levels as its nodes find warps.
constexpr uint32_t levels_at_once = 4, nodes_at_once = (1u << levels_at_once) - 1;

// A block walks one token through one tree, four levels at a time: each of 15 warps multiplies one node of
// the subtree, of which four are needed.
template <class T>
__global__ void __launch_bounds__(block_threads) walk_by_block(const WalkArguments<T> w) {
    __shared__ float z[nodes_at_once];
    const uint32_t token = blockIdx.x / w.trees, tree = blockIdx.x % w.trees, warp = threadIdx.x / 32;
    const T* x = w.x + size_t{token} * w.hidden;
    Walker walker;
    for (uint32_t top = 0; top < w.levels; top += levels_at_once) {
        const uint32_t below = 31 - __clz(warp + 1);  // levels under the subtree's root
        if (warp < nodes_at_once && top + below < w.levels) {
            const uint32_t node = ((walker.node + 1) << below) - 1 + (warp + 1 - (1u << below));
            const float value = warp_product(x, w.row(tree, node), w.hidden);
            if (threadIdx.x % 32 == 0) z[warp] = value + w.offset_of(tree, node);
        }
        __syncthreads();
        uint32_t place = 0;  // within the subtree
        for (uint32_t level = top; level < min(top + levels_at_once, w.levels); ++level) {
            const float value = z[place];
            if (w.neurons && threadIdx.x == 0)
                w.activations[(size_t{token} * w.trees + tree) * w.levels + level] = neuron_value(w, value);
            walker.step(w, level, value);
            place = 2 * place + (goes_right(value, w.zero_goes_right) ? 2 : 1);
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        w.leaf[blockIdx.x] = walker.leaf(w);
        w.margin[blockIdx.x] = walker.margin;
    }
}

// A warp walks one token through one tree.
template <class T>
__global__ void __launch_bounds__(block_threads) walk_by_warp(const WalkArguments<T> w) {
    const uint32_t unit = blockIdx.x * warps + threadIdx.x / 32;
    if (unit >= w.tokens * w.trees) return;
    const uint32_t token = unit / w.trees, tree = unit % w.trees;
    const T* x = w.x + size_t{token} * w.hidden;
    Walker walker;
    for (uint32_t level = 0; level < w.levels; ++level) {
        const float z = warp_product(x, w.row(tree, walker.node), w.hidden) + w.offset_of(tree, walker.node);
        if (w.neurons && threadIdx.x % 32 == 0)
            w.activations[size_t{unit} * w.levels + level] = neuron_value(w, z);
        walker.step(w, level, z);
    }
    if (threadIdx.x % 32 == 0) {
        w.leaf[unit] = walker.leaf(w);
        w.margin[unit] = walker.margin;
    }
}

template <class T>
void walk_rows(const Trees& trees, const void* x, const ForestCall& call) {
    const WalkArguments<T> w(trees, x, call);
    const size_t units = call.tokens * trees.trees;
    // Two blocks of 512 threads a processor run at once; more tokens had better share their reads.
    if (units <= static_cast<size_t>(call.device->processors) * 2) {
        walk_by_block<<<static_cast<unsigned>(units), block_threads, 0, call.stream>>>(w);
    } else {
        walk_by_warp<<<blocks_for(units, warps), block_threads, 0, call.stream>>>(w);
    }
    check_launch("walk");
}

constexpr unsigned group_threads = 1024;

// Counting sort by one block. counts: [leaves], then [leaves] places.
__global__ void __launch_bounds__(group_threads)
    group(const uint32_t* leaf, uint32_t stride, uint32_t tokens, uint32_t leaves, uint32_t* counts,
          uint32_t* order, LeafTile* tiles, uint32_t most_tiles) {
    __shared__ uint32_t sums[group_threads], tile_sums[group_threads];
    uint32_t* places = counts + leaves;
    for (uint32_t i = threadIdx.x; i < leaves; i += group_threads)
        counts[i] = 0;
    for (uint32_t i = threadIdx.x; i < most_tiles; i += group_threads)
        tiles[i].count = 0;
    __syncthreads();
    for (uint32_t t = threadIdx.x; t < tokens; t += group_threads)
        atomicAdd(counts + leaf[size_t{t} * stride], 1u);
    __syncthreads();
    // Each thread sums a stretch of leaves; the sums are added up over the block.
    const uint32_t stretch = (leaves + group_threads - 1) / group_threads;
    const uint32_t first = min(threadIdx.x * stretch, leaves), last = min(first + stretch, leaves);
    uint32_t sum = 0, tile_sum = 0;
    for (uint32_t i = first; i < last; ++i) {
        sum += counts[i];
        tile_sum += (counts[i] + tile_tokens - 1) / tile_tokens;
    }
    sums[threadIdx.x] = sum;
    tile_sums[threadIdx.x] = tile_sum;
    __syncthreads();
    for (uint32_t distance = 1; distance < group_threads; distance *= 2) {
        const bool adds = threadIdx.x >= distance;
        const uint32_t before = adds ? sums[threadIdx.x - distance] : 0,
                       tiles_before = adds ? tile_sums[threadIdx.x - distance] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
        tile_sums[threadIdx.x] += tiles_before;
        __syncthreads();
    }
    uint32_t place = sums[threadIdx.x] - sum;
    LeafTile* tile = tiles + (tile_sums[threadIdx.x] - tile_sum);
    for (uint32_t i = first; i < last; ++i) {
        places[i] = place;
        for (uint32_t t = 0; t < counts[i]; t += tile_tokens)
            *tile++ = {i, place + t, min(tile_tokens, counts[i] - t)};
        place += counts[i];
    }
    __syncthreads();
    for (uint32_t t = threadIdx.x; t < tokens; t += group_threads)
        order[atomicAdd(places + leaf[size_t{t} * stride], 1u)] = t;
}

}  // namespace

size_t activation_floats(const Trees& trees, size_t tokens) {
    return trees.neurons ? tokens * trees.trees * trees.levels : 0;
}

size_t most_leaf_tiles(const Trees& trees, size_t tokens) {
    return std::min(trees.leaves(), tokens) + tokens / tile_tokens;
}

size_t count_words(const Trees& trees, size_t tokens) {
    return 2 * trees.leaves() + sizeof(LeafTile) / sizeof(uint32_t) * most_leaf_tiles(trees, tokens);
}

void walk(const Trees& trees, const void* x, const ForestCall& call) {
    if (trees.rows == TensorType::f32) {
        walk_rows<float>(trees, x, call);
    } else {
        walk_rows<bf16>(trees, x, call);
    }
}

const LeafTile* group_by_leaf(const Trees& trees, size_t tree, const ForestCall& call) {
    auto* tiles = reinterpret_cast<LeafTile*>(call.scratch.counts + 2 * trees.leaves());
    group<<<1, group_threads, 0, call.stream>>>(
        call.leaf + tree, static_cast<uint32_t>(trees.trees), static_cast<uint32_t>(call.tokens),
        static_cast<uint32_t>(trees.leaves()), call.scratch.counts, call.scratch.order, tiles,
        static_cast<uint32_t>(most_leaf_tiles(trees, call.tokens)));
    check_launch("group");
    return tiles;
}

}  // namespace espalier::cuda
