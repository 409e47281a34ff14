// Forests on vectors; specification: forest_scalar.cpp.
//
// Leaf forest: every token walks its trees; then, tree by tree, tokens are counted into leaves so that a
// leaf's rows are loaded once for all its tokens, and each leaf is two small products (tile-inl.h).
// Neuron forest: a token walks all trees together, level by level, so that the walks overlap; the output rows
// of its whole path are added in one pass with the sums in registers.
#pragma once

#include <cmath>

#include "base/checked.h"
#include "kernels/activation/activation-inl.h"
#include "kernels/dense/tile-inl.h"
#include "kernels/forest/forest.h"

namespace espalier {
namespace {

inline bool goes_right(float value, TieRule tie) {
    return tie == TieRule::zero_goes_left ? value > 0 : value >= 0;
}

// A NaN margin stays NaN: it says that the walk means nothing.
inline float smaller_margin(float margin, float value) {
    const float distance = std::fabs(value);
    return distance < margin || distance != distance ? distance : margin;
}

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
inline void leaf_forest_tokens(const LeafForest& f, const float* x, size_t tokens, float* y,
                               const ForestRoutes& routes, std::byte* scratch) {
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

// Four vectors of y stay in registers while all rows of the path pass.
template <class Arch>
inline void add_path(const NeuronForest& f, const float* a, const uint32_t* rows, size_t count, float* y) {
    using V = Floats<Arch>;
    constexpr size_t w = lanes<Arch>;
    size_t i = 0;
    for (; i + 4 * w <= f.hidden; i += 4 * w) {
        V s0 = V::load_unaligned(y + i), s1 = V::load_unaligned(y + i + w);
        V s2 = V::load_unaligned(y + i + 2 * w), s3 = V::load_unaligned(y + i + 3 * w);
        for (size_t n = 0; n < count; ++n) {
            const float* row = f.out + rows[n] * f.hidden + i;
            const V scale(a[n]);
            s0 = xsimd::fma(scale, V::load_unaligned(row), s0);
            s1 = xsimd::fma(scale, V::load_unaligned(row + w), s1);
            s2 = xsimd::fma(scale, V::load_unaligned(row + 2 * w), s2);
            s3 = xsimd::fma(scale, V::load_unaligned(row + 3 * w), s3);
        }
        s0.store_unaligned(y + i);
        s1.store_unaligned(y + i + w);
        s2.store_unaligned(y + i + 2 * w);
        s3.store_unaligned(y + i + 3 * w);
    }
    for (; i < f.hidden; i += w) {
        const size_t valid = f.hidden - i < w ? f.hidden - i : w;
        V sum = load_partial<Arch>(y + i, valid);
        for (size_t n = 0; n < count; ++n)
            sum = xsimd::fma(V(a[n]), V::load_unaligned(f.out + rows[n] * f.hidden + i), sum);
        store_partial<Arch>(y + i, sum, valid);
    }
}

template <class Arch>
inline void neuron_forest_token(const NeuronForest& f, const float* x, float* y, uint32_t* leaf,
                                float* margin, float* a, uint32_t* rows) {
    for (size_t k = 0; k < f.trees; ++k) {
        leaf[k] = 0;  // the node within its tree, until the walk ends
        margin[k] = INFINITY;
    }
    size_t n = 0;
    for (size_t level = 0; level <= f.depth; ++level) {
        for (size_t k = 0; k < f.trees; ++k, ++n) {
            const size_t row = k * f.nodes() + leaf[k];
            const float z = dot<Arch>(x, f.in + row * f.hidden, f.hidden) +
                            (f.in_bias != nullptr ? f.in_bias[row] : 0.0F);
            a[n] = z;
            rows[n] = static_cast<uint32_t>(row);
            if (level == f.depth) continue;  // the last node's sign chooses nothing
            margin[k] = smaller_margin(margin[k], z);
            leaf[k] = 2 * leaf[k] + (goes_right(z, f.tie) ? 2 : 1);
        }
    }
    const auto first_of_last_level = static_cast<uint32_t>((size_t{1} << f.depth) - 1);
    for (size_t k = 0; k < f.trees; ++k)
        leaf[k] -= first_of_last_level;
    activate_values<Arch>(f.activation, a, n);
    add_path<Arch>(f, a, rows, n, y);
}

template <class Arch>
inline void neuron_forest_tokens(const NeuronForest& f, const float* x, size_t tokens, float* y,
                                 const ForestRoutes& routes, std::byte* scratch) {
    auto* a = reinterpret_cast<float*>(scratch);
    auto* rows = reinterpret_cast<uint32_t*>(scratch + round_up(f.trees * (f.depth + 1) * sizeof(float), 64));
    for (size_t t = 0; t < tokens; ++t, x += f.hidden, y += f.hidden) {
        for (size_t i = 0; i < f.hidden && f.out_bias != nullptr; ++i)
            y[i] += f.out_bias[i];
        neuron_forest_token<Arch>(f, x, y, routes.leaf + t * f.trees, routes.margin + t * f.trees, a, rows);
    }
}

}  // namespace
}  // namespace espalier
