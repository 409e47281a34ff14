// How a neuron forest goes through a call, and what scratch that needs. Compiled once, for the baseline.
#pragma once

#include "kernels/forest/neuron_forest.h"

namespace espalier {

struct NeuronPlan {
    // Tokens that walk together. Four x of 768 float32 are 12 KiB of a 32 KiB first-level cache, and four
    // rows in flight hide the third-level cache; 8, 16 and 64 were slower (docs/kernels.md).
    static constexpr size_t group = 4;
    size_t first_levels = 0;       // levels of the first pass; depth + 1: there is no second
    bool outputs_by_leaf = false;  // outputs in a pass of their own, tokens of a leaf together
    bool stream = false;           // outputs go past the caches
    bool fetch = false;            // rows are asked for as soon as a token knows its next node,
    size_t near_levels = 0;        // below the levels whose rows the caches have anyway
    bool fetch_ahead = false;      // both children's rows before it knows: for a lone token
};
NeuronPlan plan_neuron_forest(const NeuronForest& forest, size_t tokens);

// Where a call's scratch lies, in bytes from its start.
struct NeuronLayout {
    size_t z = 0;        // [tokens or group, trees, levels]
    size_t g = 0;        // the same, of a gated forest's gates
    size_t x_sum = 0;    // [tokens or group], 8-bit only
    size_t order = 0;    // [tokens], for a second pass
    size_t buckets = 0;  // for sorting
    // Of a group's outputs; levels rounded up to 4.
    size_t a = 0;       // [group, trees, levels] activations
    size_t rows = 0;    // [group, trees, levels] pointers
    size_t words = 0;   // [group, trees, levels] pairs or quads of activations
    size_t scales = 0;  // [group, trees], 8-bit only
    size_t starts = 0;  // [group, trees], 8-bit only
    size_t bytes = 0;
};
NeuronLayout neuron_layout(const NeuronForest& forest, const NeuronPlan& plan, size_t tokens);

}  // namespace espalier
