// How threads share a tree's leaves: every leaf once, shares nearly equal or refused.
#include "runtime/leaf_split.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

using espalier::split_leaves;

TEST_CASE("every leaf belongs to one thread, and shares that are taken are nearly equal") {
    std::mt19937 random(7);
    size_t taken = 0;
    for (int round = 0; round < 2000; ++round) {
        const size_t leaves = size_t{1} << random() % 7, threads = 1 + random() % 5, tokens = random() % 200;
        std::vector<uint32_t> leaf_of(tokens), counts(leaves), ends(threads);
        for (uint32_t& leaf : leaf_of)
            leaf = static_cast<uint32_t>(random() % leaves);
        const bool good = split_leaves(leaf_of, counts, ends);
        size_t first = 0, whole = 0, largest = 0;
        for (const uint32_t end : ends) {
            REQUIRE(end >= first);
            size_t share = 0;
            for (; first < end; ++first) {
                const auto here = static_cast<size_t>(std::count(leaf_of.begin(), leaf_of.end(), first));
                REQUIRE(counts[first] == here);
                share += here > 0 ? here + 6 : 0;
            }
            whole += share;
            largest = std::max(largest, share);
        }
        REQUIRE(first == leaves);
        REQUIRE(good == (largest * threads * 4 <= whole * 5));
        taken += good ? 1 : 0;
    }
    CHECK(taken > 500);
}

TEST_CASE("all tokens in one leaf, or one leaf alone: refused") {
    std::vector<uint32_t> counts(8), ends(2), leaf_of(40, 3);
    CHECK(!split_leaves(leaf_of, counts, ends));
    CHECK(ends[1] == 8);
    std::vector<uint32_t> one(1);
    for (uint32_t& leaf : leaf_of)
        leaf = 0;
    CHECK(!split_leaves(leaf_of, one, ends));
    CHECK(ends[1] == 1);
}
