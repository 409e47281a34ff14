// How threads share the leaves of a tree, once its walks are known. Each takes neighbouring leaves, so that a
// leaf's rows are loaded by one thread alone: split by tokens, two threads load nearly all leaves each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier {

// leaf_of: where every token went. counts: [leaves], overwritten. ends: [threads], filled: thread i has the
// leaves from ends[i - 1] (the first: 0) on to before ends[i]. The answer: whether the shares are nearly
// equal; else threads had better share the tokens.
bool split_leaves(std::span<const uint32_t> leaf_of, std::span<uint32_t> counts, std::span<uint32_t> ends);

}  // namespace espalier
