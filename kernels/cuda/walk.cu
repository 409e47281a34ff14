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
    __shared__ float z[nodes_at_once], gates[nodes_at_once];
    const uint32_t token = blockIdx.x / w.trees, tree = blockIdx.x % w.trees, warp = threadIdx.x / 32;
    const T* x = w.x + size_t{token} * w.hidden;
    Walker walker;
    for (uint32_t top = 0; top < w.levels; top += levels_at_once) {
        const uint32_t below = 31 - __clz(warp + 1);  // levels under the subtree's root
        if (warp < nodes_at_once && top + below < w.levels) {
            const uint32_t node = ((walker.node + 1) << below) - 1 + (warp + 1 - (1u << below));
            const float value = w.scaled(warp_product(x, w.row(tree, node), w.hidden), token, tree, node);
            if (threadIdx.x % 32 == 0) z[warp] = value + w.offset_of(tree, node);
            if (w.gates != nullptr) {
                const float gate = warp_product(x, w.gate_row(tree, node), w.hidden);
                if (threadIdx.x % 32 == 0) gates[warp] = gate;
            }
        }
        __syncthreads();
        uint32_t place = 0;  // within the subtree
        for (uint32_t level = top; level < min(top + levels_at_once, w.levels); ++level) {
            const float value = z[place], gate = w.gates != nullptr ? gates[place] : 0.0F,
                        test = w.routes_on_gate ? gate : value;
            if (w.neurons && threadIdx.x == 0)
                w.activations[(size_t{token} * w.trees + tree) * w.levels + level] =
                    neuron_value(w, value, gate);
            walker.step(w, level, test);
            place = 2 * place + (goes_right(test, w.zero_goes_right) ? 2 : 1);
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        w.leaf[blockIdx.x] = walker.leaf(w);
        w.margin[blockIdx.x] = walker.margin;
    }
}

// A warp walks one token through one tree. vectors: a row of so many vectors a lane is kept in registers; 0:
// it is read again at each node.
template <class T, int vectors>
__global__ void __launch_bounds__(block_threads) walk_by_warp(const WalkArguments<T> w) {
    const uint32_t unit = blockIdx.x * warps + threadIdx.x / 32;
    if (unit >= w.tokens * w.trees) return;
    const uint32_t token = unit / w.trees, tree = unit % w.trees;
    const T* x = w.x + size_t{token} * w.hidden;
    KeptRow<T, vectors == 0 ? 1 : vectors, true> kept;
    if constexpr (vectors > 0) kept.load(x, w.hidden);
    Walker walker;
    for (uint32_t level = 0; level < w.levels; ++level) {
        const float offset = w.offset_of(tree, walker.node);
        const T* row = w.row(tree, walker.node);
        float product;
        if constexpr (vectors > 0) {
            product = kept.product(row, w.hidden);
        } else {
            product = warp_product(x, row, w.hidden);
        }
        const float z = w.scaled(product, token, tree, walker.node) + offset;
        const float gate =
            w.gates != nullptr ? warp_product(x, w.gate_row(tree, walker.node), w.hidden) : 0.0F;
        if (w.neurons && threadIdx.x % 32 == 0)
            w.activations[size_t{unit} * w.levels + level] = neuron_value(w, z, gate);
        walker.step(w, level, w.routes_on_gate ? gate : z);
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
        const unsigned blocks = blocks_for(units, warps);
        constexpr size_t vector = 32 * vector_values<T>;
        if constexpr (sizeof(T) == 1) {
            walk_by_warp<T, 0><<<blocks, block_threads, 0, call.stream>>>(w);
        } else if (trees.hidden == 3 * vector) {
            walk_by_warp<T, 3><<<blocks, block_threads, 0, call.stream>>>(w);
        } else if (trees.hidden == 6 * vector) {
            walk_by_warp<T, 6><<<blocks, block_threads, 0, call.stream>>>(w);
        } else {
            walk_by_warp<T, 0><<<blocks, block_threads, 0, call.stream>>>(w);
        }
    }
    check_launch("walk");
}

constexpr unsigned group_threads = 1024;
constexpr uint32_t most_shared_counts = 4096;  // of leaves, in shared memory

// The sum over a block's threads up to this one, of two numbers; sums: [2 * warps].
__device__ inline uint2 sums_before(uint2 own, uint2* sums) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const auto over_warp = [lane](uint2 value) {
#pragma unroll
        for (uint32_t distance = 1; distance < 32; distance *= 2) {
            const uint32_t x = __shfl_up_sync(0xffffffffu, value.x, distance),
                           y = __shfl_up_sync(0xffffffffu, value.y, distance);
            if (lane >= distance) value.x += x, value.y += y;
        }
        return value;
    };
    const uint2 upto = over_warp(own);
    if (lane == 31) sums[warp] = upto;
    __syncthreads();
    if (warp == 0) sums[lane] = over_warp(sums[lane]);
    __syncthreads();
    const uint2 warps_before = warp > 0 ? sums[warp - 1] : make_uint2(0, 0);
    return make_uint2(warps_before.x + upto.x - own.x, warps_before.y + upto.y - own.y);
}

// Counting sort by one block. counts: [leaves] where they are too many for shared memory.
__global__ void __launch_bounds__(group_threads)
    group(const uint32_t* leaf, uint32_t stride, uint32_t tokens, uint32_t leaves, uint32_t* many_counts,
          uint32_t* order, LeafTile* tiles, uint32_t most_tiles, uint32_t tile_size) {
    __shared__ uint32_t few_counts[most_shared_counts];
    __shared__ uint2 sums[group_threads / 32];
    uint32_t* counts = leaves <= most_shared_counts ? few_counts : many_counts;
    for (uint32_t i = threadIdx.x; i < leaves; i += group_threads)
        counts[i] = 0;
    __syncthreads();
    for (uint32_t t = threadIdx.x; t < tokens; t += group_threads)
        atomicAdd(counts + leaf[size_t{t} * stride], 1u);
    __syncthreads();
    // Each thread has a stretch of leaves.
    const uint32_t stretch = (leaves + group_threads - 1) / group_threads;
    const uint32_t first = min(threadIdx.x * stretch, leaves), last = min(first + stretch, leaves);
    uint2 own = make_uint2(0, 0);  // tokens, tiles
    for (uint32_t i = first; i < last; ++i)
        own = make_uint2(own.x + counts[i], own.y + (counts[i] + tile_size - 1) / tile_size);
    const uint2 before = sums_before(own, sums);
    uint32_t place = before.x;
    LeafTile* tile = tiles + before.y;
    for (uint32_t i = first; i < last; ++i) {
        const uint32_t count = counts[i];
        for (uint32_t t = 0; t < count; t += tile_size)
            *tile++ = {i, place + t, min(tile_size, count - t)};
        counts[i] = place;  // from here on: where the leaf's next token goes
        place += count;
    }
    for (uint32_t i = sums[group_threads / 32 - 1].y + threadIdx.x; i < most_tiles; i += group_threads)
        tiles[i].count = 0;
    __syncthreads();
    for (uint32_t t = threadIdx.x; t < tokens; t += group_threads)
        order[atomicAdd(counts + leaf[size_t{t} * stride], 1u)] = t;
}

}  // namespace

size_t activation_floats(const Trees& trees, size_t tokens) {
    // In steps on tensor cores other values lie there.
    const size_t levels = trees.trees * trees.levels;
    return trees.neurons ? tokens * std::max<size_t>(levels, trees.trees == 1 ? tensor_step_floats : 0) : 0;
}

size_t most_leaf_tiles(const Trees& trees, uint32_t tile, size_t tokens) {
    return std::min(trees.leaves(), tokens) + tokens / tile;
}

size_t count_words(const Trees& trees, size_t tokens) {
    return trees.leaves() +
           sizeof(LeafTile) / sizeof(uint32_t) * most_leaf_tiles(trees, fewest_tile_tokens, tokens);
}

void walk(const Trees& trees, const void* x, const ForestCall& call) {
    if (trees.rows == TensorType::f32) {
        walk_rows<float>(trees, x, call);
    } else if (trees.rows == TensorType::s8) {
        walk_rows<int8_t>(trees, x, call);
    } else {
        walk_rows<bf16>(trees, x, call);
    }
}

const LeafTile* group_by_leaf(const Trees& trees, size_t tree, uint32_t tile, const ForestCall& call) {
    auto* tiles = reinterpret_cast<LeafTile*>(call.scratch.counts + trees.leaves());
    group<<<1, group_threads, 0, call.stream>>>(
        call.leaf + tree, static_cast<uint32_t>(trees.trees), static_cast<uint32_t>(call.tokens),
        static_cast<uint32_t>(trees.leaves()), call.scratch.counts, call.scratch.order, tiles,
        static_cast<uint32_t>(most_leaf_tiles(trees, tile, call.tokens)), tile);
    check_launch("group");
    return tiles;
}

}  // namespace espalier::cuda
