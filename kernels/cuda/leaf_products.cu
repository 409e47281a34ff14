// Leaf forests in bfloat16: tokens sorted by leaf, and two products of every tile of them, as blocks side by
// side: with 64 of the neurons that the leaf's tokens run, then of the activations with some output columns.
// What a token runs beside its leaf (the shared neurons) is more rows of the same products.
#include <algorithm>

#include "kernels/cuda/forest.h"
#include "kernels/cuda/product.cuh"

namespace espalier::cuda {
namespace {

// One tree's leaves. Neurons of a leaf come first, then, in the first tree, the shared ones.
struct Leaves {
    const bf16* x;
    const bf16 *up, *down;                // [leaves, width, hidden]
    const bf16 *shared_up, *shared_down;  // [shared, hidden]
    const float *up_bias, *bias;          // [leaves, width], [leaves, hidden]; or null
    const float *shared_up_bias, *shared_bias;
    const LeafTile* tiles;
    const uint32_t* order;
    bf16* inner;  // [tokens in the order of tiles, inner_stride]
    void* y;      // [tokens, hidden]
    uint32_t hidden, width, shared, inner_stride;
    Activation activation;
    bool accumulate;

    __device__ uint32_t neurons() const { return width + shared; }
    __device__ const bf16* row(const bf16* of_leaf, const bf16* of_shared, uint32_t leaf, uint32_t n) const {
        return n < width       ? of_leaf + (size_t{leaf} * width + n) * hidden
               : n < neurons() ? of_shared + size_t{n - width} * hidden
                               : nullptr;
    }
};

template <class P>
__global__ void __launch_bounds__(P::threads) run_up(const Leaves f) {
    extern __shared__ __align__(128) uint4 memory[];
    const LeafTile tile = f.tiles[blockIdx.x];
    if (tile.count == 0) return;
    const uint32_t first = blockIdx.y * P::columns;
    P product;
    product.run(
        reinterpret_cast<bf16*>(memory), f.hidden, P::columns,
        [&](uint32_t r) {
            return r < tile.count ? f.x + size_t{f.order[tile.first + r]} * f.hidden : nullptr;
        },
        [&](uint32_t n) { return f.row(f.up, f.shared_up, tile.leaf, first + n); });
    const auto bias = [&](uint32_t n) {
        if (n < f.width) return f.up_bias != nullptr ? f.up_bias[size_t{tile.leaf} * f.width + n] : 0.0F;
        return n < f.neurons() && f.shared_up_bias != nullptr ? f.shared_up_bias[n - f.width] : 0.0F;
    };
    // Behind the last neuron the sums are zeros and so is what an activation makes of them: the padding.
    product.write_rounded(
        reinterpret_cast<bf16*>(memory), f.inner_stride - first,
        [&](uint32_t r) {
            return r < tile.count ? f.inner + size_t{tile.first + r} * f.inner_stride + first : nullptr;
        },
        [&](uint32_t column) { return make_float2(bias(first + column), bias(first + column + 1)); },
        [&](float sum) { return narrowly_activated(f.activation, sum); });
}

template <class P, class Y>
__global__ void __launch_bounds__(P::threads) run_down(const Leaves f) {
    extern __shared__ __align__(128) uint4 memory[];
    const LeafTile tile = f.tiles[blockIdx.x];
    if (tile.count == 0) return;
    const uint32_t first = blockIdx.y * P::columns;
    P product;
    product.run(
        reinterpret_cast<bf16*>(memory), f.inner_stride, f.hidden - first,
        [&](uint32_t r) {
            return r < tile.count ? f.inner + size_t{tile.first + r} * f.inner_stride : nullptr;
        },
        [&](uint32_t n) -> const bf16* {
            const bf16* row = f.row(f.down, f.shared_down, tile.leaf, n);
            return row != nullptr ? row + first : nullptr;
        });
    auto* z = reinterpret_cast<float*>(memory);
    product.store(z);
    P::write(
        z, f.hidden - first, f.accumulate,
        [&](uint32_t r) {
            return r < tile.count ? static_cast<Y*>(f.y) + size_t{f.order[tile.first + r]} * f.hidden + first
                                  : nullptr;
        },
        [&](uint32_t column) {
            float4 sum = make_float4(0, 0, 0, 0);
            const auto add = [&](const float* row) {
                const float4 other = *reinterpret_cast<const float4*>(row + first + column);
                sum.x += other.x, sum.y += other.y, sum.z += other.z, sum.w += other.w;
            };
            if (f.bias != nullptr) add(f.bias + size_t{tile.leaf} * f.hidden);
            if (f.shared_bias != nullptr) add(f.shared_bias);
            return sum;
        });
}

template <class Up, class Down, class Y>
void multiply(const Leaves& f, size_t tiles, cudaStream_t stream) {
    static_assert(Up::rows == Down::rows);
    const auto grid = [&](size_t columns, size_t each) {
        return dim3(static_cast<unsigned>(tiles), blocks_for(columns, each));
    };
    if (f.inner_stride > 0) {
        allow_block_memory(run_up<Up>, Up::bytes);
        run_up<Up><<<grid(f.inner_stride, Up::columns), Up::threads, Up::bytes, stream>>>(f);
        check_launch("run_up");
    }
    allow_block_memory(run_down<Down, Y>, Down::bytes);
    run_down<Down, Y><<<grid(f.hidden, Down::columns), Down::threads, Down::bytes, stream>>>(f);
    check_launch("run_down");
}

constexpr uint32_t many = 64, few = 16;  // tokens of a tile
using UpOfMany = Product<many, 64, 2, 2, 4, Right::by_column>;
using DownOfMany = Product<many, 128, 2, 2, 3, Right::by_depth>;
using UpOfFew = Product<few, 32, 1, 2, 6, Right::by_column>;
using DownOfFew = Product<few, 64, 1, 4, 4, Right::by_depth>;

}  // namespace

uint32_t leaf_tile_tokens(const Trees& trees, TensorType rows, size_t tokens) {
    if (rows == TensorType::f32) return tile_tokens;
    return tokens >= 32 * trees.leaves() ? many : few;
}

size_t inner_stride(const LeafForest& forest) {
    return forest.rows == TensorType::s8 ? byte_row(forest.leaf_width) + byte_row(forest.shared_width)
                                         : (forest.leaf_width + forest.shared_width + 7) / 8 * 8;
}

void run_bf16_leaves(const LeafForest& forest, const ForestCall& call) {
    const Trees& trees = forest.trees;
    const size_t leaves = trees.leaves(), hidden = trees.hidden;
    for (size_t k = 0; k < trees.trees; ++k) {
        const size_t neurons = k * leaves * forest.leaf_width;
        const auto part = [&](const void* rows) {
            return rows != nullptr ? static_cast<const bf16*>(rows) + neurons * hidden : nullptr;
        };
        const uint32_t tile = leaf_tile_tokens(trees, forest.rows, call.tokens);
        const bool shares = k == 0 && forest.shared_width > 0;
        Leaves f{};
        f.tiles = group_by_leaf(trees, k, tile, call);
        f.x = static_cast<const bf16*>(call.x);
        f.up = part(forest.up);
        f.down = part(forest.down);
        f.up_bias = forest.up_bias != nullptr ? forest.up_bias + neurons : nullptr;
        f.bias = forest.bias != nullptr ? forest.bias + k * leaves * hidden : nullptr;
        if (shares) {
            f.shared_up = static_cast<const bf16*>(forest.shared_up);
            f.shared_down = static_cast<const bf16*>(forest.shared_down);
            f.shared_up_bias = forest.shared_up_bias;
            f.shared_bias = forest.shared_bias;
            f.shared = static_cast<uint32_t>(forest.shared_width);
        }
        f.order = call.scratch.order;
        f.inner = static_cast<bf16*>(call.scratch.inner);
        f.y = call.y;
        f.hidden = static_cast<uint32_t>(hidden);
        f.width = static_cast<uint32_t>(forest.leaf_width);
        f.inner_stride = (f.width + f.shared + 7) / 8 * 8;
        f.activation = trees.activation;
        f.accumulate = call.accumulate || k > 0;
        const size_t tiles = most_leaf_tiles(trees, tile, call.tokens);
        if (tile == many) {
            call.narrow ? multiply<UpOfMany, DownOfMany, bf16>(f, tiles, call.stream)
                        : multiply<UpOfMany, DownOfMany, float>(f, tiles, call.stream);
        } else {
            call.narrow ? multiply<UpOfFew, DownOfFew, bf16>(f, tiles, call.stream)
                        : multiply<UpOfFew, DownOfFew, float>(f, tiles, call.stream);
        }
    }
}

}  // namespace espalier::cuda
