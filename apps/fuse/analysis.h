// What a text shows of a model's blocks: how far each depends on those before it, and what its attention is
// worth (FFN Fusion, arXiv 2503.18908).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "apps/fuse/sample.h"

namespace espalier {

struct Analysis {
    size_t blocks = 0;
    uint64_t tokens = 0;
    // M [blocks, blocks]: with h_j(X) = f_j(X) - X, what block j adds to its input, and h~_j^i the same in
    // the model without block i: M_ij is the cosine distance 1 - cos(h_j, h~_j^i), the mean over tokens. 0
    // for j <= i.
    std::vector<double> dependency;
    std::vector<double> cosine;  // [blocks] of a block's input and output, the mean over tokens

    // Without the attention of a block: a decoder's perplexity; an encoder's embeddings, as the mean of
    // 1 - cos against those of the whole model.
    struct Removal {
        uint32_t block = 0;
        double cost = 0;
    };
    std::vector<Removal> removals;  // blocks with attention, ascending
    double perplexity = 0;          // a decoder's, whole

    double at(size_t removed, size_t block) const { return dependency[removed * blocks + block]; }
};

// progress: called after each pass with passes done and in all. Throws Error(unsupported) where blocks run
// beside each other: what such a block adds is no difference of states.
Analysis analyse(Context& context, const TokenizedTexts& sample,
                 const std::function<void(uint64_t done, uint64_t total)>& progress);

// The `count` blocks whose attention costs least, ascending. Throws Error(invalid_argument) where fewer have
// any.
std::vector<uint32_t> cheapest_attentions(const Analysis& analysis, size_t count);

}  // namespace espalier
