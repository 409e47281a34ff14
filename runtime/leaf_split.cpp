#include "runtime/leaf_split.h"

#include <algorithm>

namespace espalier {
namespace {

// What a leaf costs, in tokens: its rows are read once, which takes as long as a tile of about six.
size_t cost(uint32_t tokens) {
    constexpr size_t rows = 6;
    return tokens > 0 ? rows + tokens : 0;
}

}  // namespace

bool split_leaves(std::span<const uint32_t> leaf_of, std::span<uint32_t> counts, std::span<uint32_t> ends) {
    std::fill(counts.begin(), counts.end(), 0U);
    for (const uint32_t leaf : leaf_of)
        ++counts[leaf];
    size_t whole = 0;
    for (const uint32_t tokens : counts)
        whole += cost(tokens);
    const size_t threads = ends.size();
    size_t done = 0, largest = 0, leaf = 0;
    for (size_t i = 0; i < threads; ++i) {
        const size_t before = done, until = whole * (i + 1) / threads;
        // A leaf in which a share ends belongs to whom it is nearer to.
        while (leaf < counts.size() && (i + 1 == threads || done + cost(counts[leaf]) / 2 < until))
            done += cost(counts[leaf++]);
        ends[i] = static_cast<uint32_t>(leaf);
        largest = std::max(largest, done - before);
    }
    return largest * threads * 4 <= whole * 5;
}

}  // namespace espalier
