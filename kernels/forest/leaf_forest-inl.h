// Leaf forests on vectors; specification: leaf_forest_scalar.cpp.
//
// Every token walks its trees; then, tree by tree, tokens are counted into leaves so that a leaf's rows are
// loaded once for all its tokens, and each leaf is two small products (tile-inl.h).
#pragma once

#include <cstring>

#include "base/checked.h"
#include "kernels/activation/activation-inl.h"
#include "kernels/dense/tile-inl.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/walk-inl.h"

namespace espalier {
namespace {

template <class Arch>
inline void route_token(const LeafForest& f, const float* x, uint32_t* leaf, float* margin) {
    const size_t nodes = f.leaves() - 1;
    for (size_t k = 0; k < f.trees; ++k) {
        size_t node = 0;
        float least = INFINITY;
        for (size_t level = 0; level < f.depth; ++level) {
            const size_t row = k * nodes + node;
            const float value =
                dot<Arch>(x, f.node_weight + row * f.hidden, f.hidden) - f.node_threshold[row];
            least = smaller_margin(least, value);
            node = 2 * node + (goes_right(value, f.tie) ? 2 : 1);
        }
        leaf[k] = static_cast<uint32_t>(node - nodes);
        margin[k] = least;
    }
}

// y[token] += leaf(x[token]) for the tokens that `members` lists.
template <class Arch>
inline void run_leaf(const LeafForest& f, size_t g, const float* x, float* y, const uint32_t* members,
                     size_t count, float* a) {
    for (size_t start = 0; start < count; start += leaf_token_block) {
        const size_t rows = count - start < leaf_token_block ? count - start : leaf_token_block;
        const uint32_t* tokens = members + start;
        TileJob up;
        up.depth = f.hidden;
        up.b = f.up + g * f.hidden * f.padded_width;
        up.b_stride = f.padded_width;
        up.bias = f.up_bias != nullptr ? f.up_bias + g * f.padded_width : nullptr;
        up.columns = f.padded_width;
        const auto a_row = [&](size_t r) { return a + r * f.padded_width; };
        multiply<Arch>(
            up, rows, [&](size_t r) { return x + tokens[r] * f.hidden; }, a_row);
        activate_values<Arch>(f.activation, a, rows * f.padded_width);
        TileJob down;
        down.depth = f.leaf_width;
        down.b = f.down + g * f.leaf_width * f.hidden;
        down.b_stride = f.hidden;
        down.bias = f.leaf_bias != nullptr ? f.leaf_bias + g * f.hidden : nullptr;
        down.accumulate = true;
        down.columns = f.hidden;
        multiply<Arch>(down, rows, a_row, [&](size_t r) { return y + tokens[r] * f.hidden; });
    }
}

template <class Arch>
inline void leaf_forest_tokens(const LeafForest& f, const ForestCall& call) {
    const auto* x = static_cast<const float*>(call.x);
    const size_t tokens = call.tokens;
    float* y = call.y;
    const ForestRoutes& routes = call.routes;
    std::byte* scratch = call.scratch;
    if (!call.accumulate) std::memset(y, 0, tokens * f.hidden * sizeof(float));
    auto* activations = reinterpret_cast<float*>(scratch);
    scratch += round_up(leaf_token_block * f.padded_width * sizeof(float), 64);
    auto* ends =
        reinterpret_cast<uint32_t*>(scratch);  // [leaves + 1]: where each leaf's tokens end in `order`
    scratch += round_up((f.leaves() + 1) * sizeof(uint32_t), 64);
    auto* order = reinterpret_cast<uint32_t*>(scratch);  // [tokens], by leaf
    for (size_t t = 0; t < tokens; ++t)
        route_token<Arch>(f, x + t * f.hidden, routes.leaf + t * f.trees, routes.margin + t * f.trees);
    for (size_t k = 0; k < f.trees; ++k) {
        for (size_t leaf = 0; leaf <= f.leaves(); ++leaf)
            ends[leaf] = 0;
        for (size_t t = 0; t < tokens; ++t)
            ++ends[routes.leaf[t * f.trees + k] + 1];
        for (size_t leaf = 1; leaf <= f.leaves(); ++leaf)
            ends[leaf] += ends[leaf - 1];
        // Now ends[leaf] is where the leaf starts; placing its tokens moves it to where it ends.
        for (size_t t = 0; t < tokens; ++t)
            order[ends[routes.leaf[t * f.trees + k]]++] = static_cast<uint32_t>(t);
        size_t begin = 0;
        for (size_t leaf = 0; leaf < f.leaves(); ++leaf) {
            if (ends[leaf] > begin)
                run_leaf<Arch>(f, k * f.leaves() + leaf, x, y, order + begin, ends[leaf] - begin,
                               activations);
            begin = ends[leaf];
        }
    }
}

}  // namespace
}  // namespace espalier
