// One feed-forward layer of trees against dense layers, timed alternately in one run on new random tokens.
#pragma once

#include "apps/command.h"
#include "apps/layer_tokens.h"

namespace espalier {

struct LayerOptions {
    size_t hidden = 768, batch = 1;
    std::string ffn, against, precision = "f32", routing = "random", isa, backend;
    int threads = 1;
    double seconds = 2;
    bool huge_pages = true, cold = true;
};

// Throws Error. What this machine or build lacks is no error: {"supported": false, "reason": ...}.
Json bench_layer(const LayerOptions& options);
// Throws Error(internal) where the result's own checks are outside their budgets.
void require_verified(const Json& result);
void print_layer(const Json& result);

}  // namespace espalier
