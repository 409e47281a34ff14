// How a neuron forest goes through a call, and what scratch that needs. Compiled once, for the baseline.
#pragma once

#include "kernels/forest/neuron_forest.h"

namespace espalier {

struct NeuronPlan {
    // Tokens that walk together: a lane each (path-inl.h), `side` at a time side by side, so that while some
    // wait for their rows the others compute.
    static constexpr size_t largest_group = 16, side = 4;
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
    // For a second pass: what nodes said, and of gated forests what multiplies it: [tokens, trees, levels].
    size_t kept = 0, kept_factors = 0;
    size_t x_sum = 0;    // [tokens or group], 8-bit only
    size_t order = 0;    // [tokens], for a second pass
    size_t buckets = 0;  // for sorting
    // Of a group's paths (path-inl.h); levels rounded up to 4.
    size_t a = 0, factors = 0;  // [trees, levels, group]
    size_t rows = 0;            // [group, trees, levels] pointers
    size_t words = 0;           // [trees, levels, group] pairs or quads of activations
    size_t scales = 0;          // [trees, group], 8-bit only
    size_t starts = 0;          // [trees, group], 8-bit only
    size_t bytes = 0;
};
NeuronLayout neuron_layout(const NeuronForest& forest, const NeuronPlan& plan, size_t tokens);

}  // namespace espalier
