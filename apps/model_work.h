// What a call on a model has to do at least: the bounds that a measured time is held against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/context.h"

namespace espalier {

struct ModelWork {
    uint64_t multiply_adds = 0;
    // Of weights read once: all of projections, dense parts and a decoder's output matrix, leaves that tokens
    // reached, node rows and neurons of trees at most as often as tokens pass them. Embedding rows, norms and
    // biases are left out.
    uint64_t weight_bytes = 0;
};

// Of the context's last call: `batch` sequences of `length` tokens.
ModelWork work_of(const Model& model, const Context& context, uint64_t batch, uint64_t length);

// Leaves that the last call's tokens reached, by forest; trees of a forest summed.
std::vector<size_t> distinct_leaves(const Model& model, const Context& context);

}  // namespace espalier
