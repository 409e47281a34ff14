// Forests in 8 bits: leaves as products of byte_products.h; neurons one by one, since their activations are
// rounded with one scale a token and tree.
#include <algorithm>

#include "kernels/cuda/byte_products.h"
#include "kernels/cuda/walk.cuh"

namespace espalier::cuda {
namespace {

constexpr uint32_t most_levels = 32;

// y = or += the rows of a token's paths: a block a token and a stretch of columns, a thread four columns.
__global__ void add_byte_paths(const WalkArguments<int8_t> w, const int8_t* out, const float* out_scale,
                               const float* bias, uint32_t hidden, float* y, bool accumulate) {
    __shared__ int32_t steps[most_levels];
    __shared__ uint32_t rows[most_levels];
    __shared__ float tree_scale;
    const uint32_t token = blockIdx.x, column = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
    const bool works = column < hidden;
    float sum[4] = {};
    if (works && bias != nullptr) {
        for (uint32_t j = 0; j < 4; ++j)
            sum[j] = bias[column + j];
    }
    for (uint32_t tree = 0; tree < w.trees; ++tree) {
        if (threadIdx.x < 32) {
            const uint32_t level = threadIdx.x, unit = token * w.trees + tree;
            float a = 0;
            if (level < w.levels) {
                const uint32_t node = ((w.leaf[unit] + (1u << (w.levels - 1))) >> (w.levels - 1 - level)) - 1;
                rows[level] = tree * w.nodes_per_tree() + node;
                a = w.activations[size_t{unit} * w.levels + level] * out_scale[rows[level]];
            }
            const float top = warp_max(isfinite(a) ? fabsf(a) : INFINITY);
            const float scale = isfinite(top) ? top / 127.0F : NAN;
            steps[level] =
                scale > 0 ? static_cast<int32_t>(fminf(fmaxf(rintf(a / scale), -127.0F), 127.0F)) : 0;
            if (level == 0) tree_scale = scale;
        }
        __syncthreads();
        if (works) {
            int32_t exact[4] = {};
            for (uint32_t level = 0; level < w.levels; ++level) {
                const char4 row =
                    *reinterpret_cast<const char4*>(out + size_t{rows[level]} * w.hidden + column);
                exact[0] += steps[level] * row.x, exact[1] += steps[level] * row.y;
                exact[2] += steps[level] * row.z, exact[3] += steps[level] * row.w;
            }
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j)
                sum[j] += static_cast<float>(exact[j]) * tree_scale;
        }
        __syncthreads();
    }
    if (!works) return;
    float* target = y + size_t{token} * hidden + column;
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j)
        target[j] = accumulate ? target[j] + sum[j] : sum[j];
}

}  // namespace

void run_byte_neurons(const NeuronForest& forest, const ForestCall& call) {
    const WalkArguments<int8_t> w(forest.trees, call.x, call);
    const size_t hidden = forest.trees.hidden, threads = std::min<size_t>(256, (hidden / 4 + 31) / 32 * 32);
    const dim3 grid(static_cast<unsigned>(call.tokens), blocks_for(hidden / 4, threads));
    add_byte_paths<<<grid, static_cast<unsigned>(threads), 0, call.stream>>>(
        w, static_cast<const int8_t*>(forest.out), forest.out_scale, forest.out_bias,
        static_cast<uint32_t>(hidden), static_cast<float*>(call.y), call.accumulate);
    check_launch("add_byte_paths");
}

void run_byte_leaves(const LeafForest& forest, const ForestCall& call) {
    const Trees& trees = forest.trees;
    const size_t leaves = trees.leaves(), hidden = trees.hidden, width = byte_row(forest.leaf_width),
                 row = byte_row(hidden);
    const auto of_tree = [&](const auto* values, size_t k, size_t each) {
        return values != nullptr ? values + k * leaves * each : nullptr;
    };
    for (size_t k = 0; k < trees.trees; ++k) {
        const uint32_t tile = leaf_tile_tokens(trees, forest.rows, call.tokens);
        ByteProduct p;
        p.tiles = group_by_leaf(trees, k, tile, call);
        p.most_tiles = most_leaf_tiles(trees, tile, call.tokens);
        p.few = tile == fewest_tile_tokens;
        p.order = call.scratch.order;
        p.rows = static_cast<uint32_t>(call.tokens);
        ByteProduct down = p;
        const size_t shared = k == 0 ? byte_row(forest.shared_width) : 0;
        if (width > 0) {
            ByteProduct up = p;
            up.a = static_cast<const int8_t*>(call.x);
            up.a_scale = call.x_scale;
            up.gathers = true;
            up.b = of_tree(static_cast<const int8_t*>(forest.up), k, width * row);
            up.b_scale = of_tree(forest.up_scale, k, width);
            up.bias = of_tree(forest.up_bias, k, width);
            up.depth = static_cast<uint32_t>(row);
            up.columns = static_cast<uint32_t>(width);
            up.shared_b = static_cast<const int8_t*>(forest.shared_up);
            up.shared_b_scale = forest.shared_up_scale;
            up.shared_bias = forest.shared_up_bias;
            up.shared_columns = static_cast<uint32_t>(shared);
            up.activation = trees.activation;
            up.y = call.scratch.inner;
            multiply(up, call.stream);
            RoundedRows rounded;
            rounded.x = up.y;
            rounded.rows = call.tokens;
            rounded.columns = width;
            rounded.rotated = forest.rotated_activations;
            rounded.shared_columns = shared;
            rounded.shared_rotated = forest.rotated_shared;
            rounded.factors = of_tree(forest.down_scale, k, width);
            rounded.shared_factors = forest.shared_down_scale;
            rounded.order = call.scratch.order;
            rounded.leaf = call.leaf + k;
            rounded.stride = trees.trees;
            rounded.y = call.scratch.inner_bytes;
            rounded.scale = call.scratch.inner_scale;
            round_rows(rounded, call.stream);
            down.a = rounded.y;
            down.a_scale = rounded.scale;
            down.b = of_tree(static_cast<const int8_t*>(forest.down), k, hidden * width);
            down.shared_b = static_cast<const int8_t*>(forest.shared_down);
            down.shared_depth = static_cast<uint32_t>(shared);
        }
        down.depth = static_cast<uint32_t>(width);
        down.columns = static_cast<uint32_t>(hidden);
        down.bias = of_tree(forest.bias, k, hidden);
        down.scatters = true;
        down.y = call.y;
        down.accumulate = call.accumulate || k > 0;
        multiply(down, call.stream);
    }
}

}  // namespace espalier::cuda
