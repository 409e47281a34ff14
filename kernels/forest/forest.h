// Conditional matrix multiplication: the feed-forward parts that are trees. What the two kinds of forest
// (leaf_forest.h, neuron_forest.h) share.
//
// Routing is float32 on every instruction set. The margin of a walk is the smallest |test value| on it: a
// margin under `hairline` may end in another leaf elsewhere, because sums are rounded in another order.
// A test value that is NaN goes left (no comparison with it is true) and has margin NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace espalier {

inline constexpr float hairline = 1e-4F;

// Where each token went: [tokens, trees]. For neuron forests `leaf` is the last node's place in its level.
struct ForestRoutes {
    uint32_t* leaf = nullptr;
    float* margin = nullptr;
};

// What a call of a leaf forest of one tree does, where threads share it: first each walks some of the tokens,
// then each runs some of the leaves.
enum class ForestStep {
    all,
    walk,    // routes are filled; y is not touched
    leaves,  // routes are there: leaves from first_leaf to before last_leaf, for those tokens that are in
             // them
};

// One call on `tokens` tokens. A token's result does not depend on the other tokens of the call.
struct ForestCall {
    // [tokens, hidden] in the type of the forest's rows: float, bfloat16 (uint16_t) or int8_t.
    const void* x = nullptr;
    const float* x_scale = nullptr;  // [tokens], for 8-bit x only: a value is stored * scale
    // What walks read instead of x, before it was rounded: [tokens, hidden]; or null. Leaf forests with
    // float32 node rows alone.
    const float* walk_x = nullptr;
    size_t tokens = 0;
    float* y = nullptr;      // [tokens, hidden], not x; touched only within its rows
    bool accumulate = true;  // y += forest(x), else y = forest(x)
    ForestRoutes routes;     // filled
    ForestStep step = ForestStep::all;
    size_t first_leaf = 0, last_leaf = SIZE_MAX;  // leaf forests alone
    std::byte* scratch = nullptr;                 // scratch_bytes(forest, tokens), 64-byte aligned
};

}  // namespace espalier
