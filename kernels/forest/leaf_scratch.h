// The scratch memory of a leaf forest's call: sized once (leaf_forest_scalar.cpp), laid out by every kernel.
#pragma once

#include "base/checked.h"
#include "kernels/dense/panel.h"
#include "kernels/forest/leaf_forest.h"

namespace espalier {
namespace {

// Tokens behind the end of `order`: two tiles' rows.
inline constexpr size_t leaf_order_slack = 16;

struct LeafScratch {
    size_t columns;                // neurons that a token of one tree runs: shared ones first, both padded
    size_t words;                  // of `rounded`, a token
    float* activations = nullptr;  // [leaf_token_block, columns]
    uint32_t* rounded =
        nullptr;  // [leaf_token_block, words]: activations in the type of the rows; bf16 and s8
    uint32_t* x_tail = nullptr;  // [leaf_token_block]: the last, incomplete word of a token's x
    float* scale = nullptr;      // [leaf_token_block]: s8: of `rounded`
    int32_t* sum = nullptr;      // [leaf_token_block]: s8: of `rounded`
    int32_t* x_sum = nullptr;    // [tokens]: s8: of x
    uint32_t* ends = nullptr;    // [leaves + 1]: where each leaf's tokens end in `order`
    uint32_t* order = nullptr;   // [tokens + leaf_order_slack], by leaf
    float* wide_x = nullptr;     // [16, hidden]: x in the type of the node rows, where that is another
    size_t bytes;

    LeafScratch(const LeafForest& f, size_t tokens, std::byte* base)
        : columns(leaf_padded(f.shared_width) + leaf_padded(f.leaf_width)),
          words(columns / panel_group(f.rows)) {
        size_t used = 0;
        const auto take = [&](auto*& place, size_t count) {
            if (base != nullptr)
                place = reinterpret_cast<std::remove_reference_t<decltype(place)>>(base + used);
            used += round_up(count * sizeof(*place), 64);
        };
        const bool bytewise = f.rows == TensorType::s8;
        take(activations, leaf_token_block * columns);
        take(rounded, f.rows == TensorType::f32 ? 0 : leaf_token_block * words);
        take(x_tail, leaf_token_block);
        take(scale, bytewise ? leaf_token_block : 0);
        take(sum, bytewise ? leaf_token_block : 0);
        take(x_sum, bytewise ? tokens : 0);
        take(ends, f.leaves() + 1);
        take(order, tokens + leaf_order_slack);
        take(wide_x, f.rows == f.node_rows ? 0 : 32 * f.hidden);
        bytes = used;
    }
};

}  // namespace
}  // namespace espalier
