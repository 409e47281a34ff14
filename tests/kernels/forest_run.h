// One call of a forest kernel on guarded buffers.
#pragma once

#include <memory>

#include "tests/kernels/forest_support.h"
#include "tests/kernels/leaf_fixture.h"

namespace espalier::test {

// y0 is what the forest adds to: [tokens, hidden].
template <class Fixture>
std::unique_ptr<ForestResult> run_forest(Fixture& fixture, Isa isa, const float* x, const float* y0,
                                         size_t tokens) {
    const auto& f = fixture.forest;
    auto result = std::make_unique<ForestResult>(tokens, f.hidden, f.trees, scratch_bytes(f, tokens));
    if (tokens > 0) std::memcpy(result->y.data(), y0, tokens * f.hidden * sizeof(float));
    ForestCall call;
    call.x = x;
    call.tokens = tokens;
    call.y = result->y.data();
    call.routes = result->routes();
    call.scratch = result->scratch.data();
    Fixture::kernel(kernel_table(isa))(f, call);
    CHECK(result->intact());
    CHECK(fixture.intact());
    return result;
}

// Every token's outputs, leaves and margins have the same bits as those of `other` from token `start` on.
inline bool same_results(ForestResult& part, ForestResult& whole, size_t start, size_t tokens, size_t hidden,
                         size_t trees) {
    const auto equal = [](const auto* a, const auto* b, size_t count) {
        return count == 0 || std::memcmp(a, b, count * sizeof(*a)) == 0;
    };
    return equal(part.y.data(), whole.y.data() + start * hidden, tokens * hidden) &&
           equal(part.leaf.data(), whole.leaf.data() + start * trees, tokens * trees) &&
           equal(part.margin.data(), whole.margin.data() + start * trees, tokens * trees);
}

}  // namespace espalier::test
