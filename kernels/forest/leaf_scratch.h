// The scratch memory of a leaf forest's call: sized once (leaf_forest_scalar.cpp), laid out by every kernel.
#pragma once

#include "base/checked.h"
#include "kernels/dense/panel.h"
#include "kernels/forest/leaf_forest.h"

namespace espalier {
namespace {

// Tokens behind the end of `order`: two tiles' rows.
inline constexpr size_t leaf_order_slack = 16;

// Where the pieces lie, in bytes from the start.
struct LeafLayout {
    size_t columns;      // neurons that a token of one tree runs: shared ones first, both padded
    size_t words;        // of `rounded`, a token
    size_t activations;  // [leaf_token_block, columns]
    size_t gates;        // [leaf_token_block, columns]: of a gated forest
    size_t rounded;      // [leaf_token_block, words]: activations in the type of the rows; bf16 and s8
    size_t x_tail;       // [leaf_token_block]: the last, incomplete word of a token's x
    size_t scale, sum;   // [leaf_token_block]: s8: of `rounded`
    size_t x_sum;        // [tokens]: s8: of x
    size_t ends;         // [leaves + 1]: where each leaf's tokens end in `order`
    size_t order;        // [tokens + leaf_order_slack], by leaf
    size_t wide_x;       // [32, hidden]: x in the type of the node rows, where that is another
    size_t bytes = 0;

    LeafLayout(const LeafForest& f, size_t tokens)
        : columns(leaf_padded(f.shared_width) + leaf_padded(f.leaf_width)),
          words(columns / panel_group(f.rows)) {
        const auto take = [&](size_t count) {
            const size_t start = bytes;
            bytes += round_up(count * sizeof(uint32_t), 64);
            return start;
        };
        const bool bytewise = f.rows == TensorType::s8;
        activations = take(leaf_token_block * columns);
        gates = take(f.gated ? leaf_token_block * columns : 0);
        rounded = take(f.rows == TensorType::f32 ? 0 : leaf_token_block * words);
        x_tail = take(leaf_token_block);
        scale = take(bytewise ? leaf_token_block : 0);
        sum = take(bytewise ? leaf_token_block : 0);
        x_sum = take(bytewise ? tokens : 0);
        ends = take(f.leaves() + 1);
        order = take(tokens + leaf_order_slack);
        wide_x = take(f.rows == f.node_rows ? 0 : 32 * f.hidden);
    }
};

struct LeafScratch {
    size_t columns, words;
    float *activations, *gates;
    uint32_t *rounded, *x_tail;
    float* scale;
    int32_t *sum, *x_sum;
    uint32_t *ends, *order;
    float* wide_x;

    LeafScratch(const LeafForest& f, size_t tokens, std::byte* base)
        : LeafScratch(LeafLayout(f, tokens), base) {}

   private:
    LeafScratch(const LeafLayout& layout, std::byte* base)
        : columns(layout.columns),
          words(layout.words),
          activations(reinterpret_cast<float*>(base + layout.activations)),
          gates(reinterpret_cast<float*>(base + layout.gates)),
          rounded(reinterpret_cast<uint32_t*>(base + layout.rounded)),
          x_tail(reinterpret_cast<uint32_t*>(base + layout.x_tail)),
          scale(reinterpret_cast<float*>(base + layout.scale)),
          sum(reinterpret_cast<int32_t*>(base + layout.sum)),
          x_sum(reinterpret_cast<int32_t*>(base + layout.x_sum)),
          ends(reinterpret_cast<uint32_t*>(base + layout.ends)),
          order(reinterpret_cast<uint32_t*>(base + layout.order)),
          wide_x(reinterpret_cast<float*>(base + layout.wide_x)) {}
};

}  // namespace
}  // namespace espalier
