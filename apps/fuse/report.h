// What a model costs and gives before and after fusing.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "apps/command.h"
#include "apps/fuse/sample.h"

namespace espalier {

struct Comparison {
    Json before, after;
    std::optional<double> embedding_cosine;  // of encoders, where there is a sample
};

struct ComparisonOptions {
    int threads = 1;
    double seconds = 1;  // of timing for each model
};

// sample: may be null, then nothing is said of quality. Latencies are taken in turns, on random ids.
Comparison compare_models(const Model& before, const Model& after, const TokenizedTexts* sample,
                          const ComparisonOptions& options);

void print_comparison(const Comparison& comparison);

}  // namespace espalier
