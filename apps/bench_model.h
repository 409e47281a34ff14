// Whole models, timed in turns.
#pragma once

#include "apps/command.h"

namespace espalier {

struct ModelBench {
    std::string file, synthetic, ffn;  // a model file, or the shape and parts of a random one
    std::vector<std::string> against;  // parts of random ones of the same shape
    uint32_t ids = 128, batch = 1;
    double seconds = 3;  // for each model
    bool serve = false;
    CommonOptions common;
};

// A row a model, the file's or the first parts' in front. Throws Error.
std::vector<Json> time_models(const ModelBench& options);

}  // namespace espalier
