// Forests at their edges: what NaN and infinity do, and that no token feels its neighbours.
#include "tests/kernels/forest_run.h"

namespace {

using namespace espalier;
using namespace espalier::test;

constexpr size_t hidden = 45, trees = 3, depth = 3, tokens = 97;

template <class Fixture>
struct Case {
    explicit Case(uint64_t seed, size_t leaf_width = 21)
        : random(seed),
          fixture({hidden, trees, depth, leaf_width}, random),
          x(tokens * hidden),
          y(tokens * hidden) {
        fill_normal(x, random);
        fill_normal(y, random);
    }
    Random random;
    Fixture fixture;
    Buffer<float> x, y;
};

}  // namespace

TEST_CASE_TEMPLATE("a token alone has the bits it has in any batch", Fixture, LeafFixture, NeuronFixture) {
    for (const size_t leaf_width : {1, 21, 64}) {
        Case<Fixture> c(21, leaf_width);
        for (const Activation activation : all_activations) {
            c.fixture.forest.activation = activation;
            for (const Isa isa : available_isas()) {
                CAPTURE(named(isa));
                CAPTURE(named(activation));
                const auto whole = run_forest(c.fixture, isa, c.x.data(), c.y.data(), tokens);
                for (size_t t = 0; t < tokens; t += 4) {
                    const size_t count = t % 3 == 0 ? 1 : std::min(tokens - t, c.random.between(1, 30));
                    const auto part =
                        run_forest(c.fixture, isa, c.x.data() + t * hidden, c.y.data() + t * hidden, count);
                    REQUIRE(same_results(*part, *whole, t, count, hidden, trees));
                }
            }
        }
    }
}

TEST_CASE_TEMPLATE("tokens that all meet in one leaf, more than a block of them", Fixture, LeafFixture,
                   NeuronFixture) {
    Case<Fixture> c(22);
    // A leaf tree subtracts its threshold, a neuron tree adds its bias: all go right here, all left there.
    for (float& threshold : c.fixture.thresholds())
        threshold = -1000;
    const bool leaf_tree = std::is_same_v<Fixture, LeafFixture>;
    const uint32_t meeting = leaf_tree ? (1u << depth) - 1 : 0;
    for (const Isa isa : available_isas()) {
        const auto found = run_forest(c.fixture, isa, c.x.data(), c.y.data(), tokens);
        Budget budget;
        for (size_t t = 0; t < tokens; ++t) {
            const auto expected = c.fixture.expected(c.x.data() + t * hidden, c.y.data() + t * hidden);
            for (size_t k = 0; k < trees; ++k)
                REQUIRE(found->leaf[t * trees + k] == meeting);
            for (size_t i = 0; i < hidden; ++i)
                budget.add(found->y[t * hidden + i], expected.y[i], expected.budget[i]);
        }
        CHECK(budget.worst() <= 1);
    }
}

TEST_CASE_TEMPLATE("a NaN token goes left, has margin NaN, and is felt by no other", Fixture, LeafFixture,
                   NeuronFixture) {
    Case<Fixture> c(23);
    for (const Isa isa : available_isas()) {
        CAPTURE(named(isa));
        for (const TieRule tie : {TieRule::zero_goes_left, TieRule::zero_goes_right}) {
            c.fixture.forest.tie = tie;
            const auto clean = run_forest(c.fixture, isa, c.x.data(), c.y.data(), tokens);
            for (const size_t place : {size_t{0}, size_t{31}, hidden - 1}) {
                Buffer<float> x(tokens * hidden);
                std::copy(c.x.begin(), c.x.end(), x.begin());
                constexpr size_t sick = 40;
                x[sick * hidden + place] = NAN;
                const auto found = run_forest(c.fixture, isa, x.data(), c.y.data(), tokens);
                for (size_t k = 0; k < trees; ++k) {
                    CHECK(found->leaf[sick * trees + k] == 0);
                    CHECK(std::isnan(found->margin[sick * trees + k]));
                }
                for (size_t t = 0; t < tokens; ++t) {
                    if (t == sick) continue;
                    REQUIRE(same_bits(found->y.data() + t * hidden, clean->y.data() + t * hidden, hidden));
                    for (size_t k = 0; k < trees; ++k)
                        REQUIRE(found->leaf[t * trees + k] == clean->leaf[t * trees + k]);
                }
                for (size_t i = 0; i < hidden; ++i)
                    CHECK(std::isnan(found->y[sick * hidden + i]));
            }
        }
    }
}

TEST_CASE_TEMPLATE("an infinite token takes scalar's leaves on every instruction set", Fixture, LeafFixture,
                   NeuronFixture) {
    Case<Fixture> c(24);
    for (size_t t = 0; t < tokens; ++t) {
        c.x[t * hidden + c.random.between(0, hidden - 1)] = t % 2 == 0 ? INFINITY : -INFINITY;
        // Two infinities may meet as NaN in a sum; every order of adding says so.
        if (t % 5 == 0) c.x[t * hidden + c.random.between(0, hidden - 1)] = INFINITY;
    }
    const auto scalar = run_forest(c.fixture, Isa::scalar, c.x.data(), c.y.data(), tokens);
    for (const Isa isa : available_isas()) {
        CAPTURE(named(isa));
        const auto found = run_forest(c.fixture, isa, c.x.data(), c.y.data(), tokens);
        for (size_t i = 0; i < tokens * trees; ++i) {
            REQUIRE(found->leaf[i] == scalar->leaf[i]);
            REQUIRE(same_class(found->margin[i], scalar->margin[i]));
        }
        size_t other_class = 0;
        for (size_t i = 0; i < tokens * hidden; ++i)
            other_class += same_class(found->y[i], scalar->y[i]) ? 0 : 1;
        CHECK(other_class == 0);
    }
}

TEST_CASE_TEMPLATE("infinite and NaN thresholds", Fixture, LeafFixture, NeuronFixture) {
    Case<Fixture> c(25);
    const auto leaves_of_all = [&](uint32_t expected) {
        for (const Isa isa : available_isas()) {
            const auto found = run_forest(c.fixture, isa, c.x.data(), c.y.data(), tokens);
            for (size_t i = 0; i < tokens * trees; ++i)
                REQUIRE(found->leaf[i] == expected);
        }
    };
    const uint32_t last = (1u << depth) - 1;
    const float always_right = std::is_same_v<Fixture, LeafFixture> ? -INFINITY : INFINITY;
    std::fill(c.fixture.thresholds().begin(), c.fixture.thresholds().end(), always_right);
    leaves_of_all(last);
    std::fill(c.fixture.thresholds().begin(), c.fixture.thresholds().end(), -always_right);
    leaves_of_all(0);
    std::fill(c.fixture.thresholds().begin(), c.fixture.thresholds().end(), NAN);
    leaves_of_all(0);
}
