// Forests of every instruction set against double precision, over random shapes.
#include "tests/kernels/forest_run.h"

namespace {

using namespace espalier;
using namespace espalier::test;

struct Count {
    size_t walks = 0, hairlines = 0, tokens = 0;
    Budget outputs, margins;
};

void compare_token(const ExpectedToken& expected, const ForestResult& found, size_t t, size_t hidden,
                   bool exact, Count& count) {
    const size_t trees = expected.leaf.size();
    ++count.tokens;
    count.walks += trees;
    for (size_t k = 0; k < trees; ++k) {
        const size_t at = t * trees + k;
        if (!exact && expected.margin[k] < hairline) {
            ++count.hairlines;
            continue;
        }
        REQUIRE(found.leaf[at] == expected.leaf[k]);
        if (std::isinf(expected.margin[k])) {
            CHECK(found.margin[at] == INFINITY);
        } else {
            count.margins.add(found.margin[at], expected.margin[k], expected.margin_budget[k]);
        }
    }
    if (expected.hairline_walk(exact)) return;
    for (size_t i = 0; i < hidden; ++i)
        count.outputs.add(found.y[t * hidden + i], expected.y[i], expected.budget[i]);
}

template <class Fixture>
void compare(const ForestSize& size, Activation activation, TieRule tie, size_t tokens, uint64_t seed,
             Count& count) {
    Random random(seed);
    Fixture fixture(size, random);
    fixture.forest.activation = activation;
    fixture.forest.tie = tie;
    Buffer<float> x(tokens * size.hidden), y(tokens * size.hidden);
    fill(x, random, size, 1);
    fill(y, random, size, 1);
    std::vector<ExpectedToken> expected;
    for (size_t t = 0; t < tokens; ++t)
        expected.push_back(fixture.expected(x.data() + t * size.hidden, y.data() + t * size.hidden));
    CAPTURE(size.hidden);
    CAPTURE(size.trees);
    CAPTURE(size.depth);
    CAPTURE(size.leaf_width);
    CAPTURE(size.gated);
    CAPTURE(size.routes_on_gate);
    CAPTURE(tokens);
    CAPTURE(named(activation));
    for (const Isa isa : available_isas()) {
        CAPTURE(named(isa));
        const auto found = run_forest(fixture, isa, x.data(), y.data(), tokens);
        for (size_t t = 0; t < tokens; ++t)
            compare_token(expected[t], *found, t, size.hidden, size.integers, count);
        REQUIRE(count.outputs.worst() <= 1);
        REQUIRE(count.margins.worst() <= 1);
    }
    CHECK(x.intact());
}

void report(const std::string& what, const Count& count) {
    MESSAGE(what, ": ", count.tokens, " tokens, ", count.walks, " walks, ", count.hairlines,
            " hairlines (exempt); largest share of its budget: output ", count.outputs.worst(), ", margin ",
            count.margins.worst());
}

template <class Fixture>
ForestSize random_size(Random& random, size_t hidden) {
    ForestSize size;
    size.hidden = hidden;
    size.trees = random.between(1, 6);
    size.depth = random.between(0, 6);
    size.leaf_width = random.pick<size_t>({0, 1, 2, 5, 7, 15, 16, 17, 31, 64, 65});
    size.up_bias = random.coin();
    size.output_bias = random.coin();
    size.gated = random.between(0, 2) == 0;
    size.routes_on_gate = size.gated && random.coin();
    return size;
}

}  // namespace

TEST_CASE_TEMPLATE("every hidden width from 1 to 70, random trees, tokens and activations", Fixture,
                   LeafFixture, NeuronFixture) {
    Count count;
    Random random(11);
    for (size_t hidden = 1; hidden <= 70; ++hidden) {
        for (const size_t tokens : {size_t{1}, random.between(2, 60)}) {
            compare<Fixture>(random_size<Fixture>(random, hidden), all_activations[random.between(0, 5)],
                             random.pick({TieRule::zero_goes_left, TieRule::zero_goes_right}), tokens,
                             random.next(), count);
        }
    }
    report("1 to 70", count);
    CHECK(count.hairlines * 100 < count.walks);
}

TEST_CASE_TEMPLATE("model widths and odd ones beside them", Fixture, LeafFixture, NeuronFixture) {
    Count count;
    Random random(12);
    for (const size_t hidden : {383, 384, 385, 511, 767, 768, 769}) {
        for (const size_t leaf_width : {0, 1, 33, 64}) {
            ForestSize size{hidden, 2, 3, leaf_width};
            compare<Fixture>(size, Activation::gelu_erf, TieRule::zero_goes_left, 50, random.next(), count);
        }
    }
    report("model widths", count);
    CHECK(count.hairlines * 100 < count.walks);
}

TEST_CASE_TEMPLATE("gated trees at model widths, routed by their gates and not", Fixture, LeafFixture,
                   NeuronFixture) {
    Count count;
    Random random(14);
    for (const size_t hidden : {127, 128, 384, 577}) {
        for (const bool on_gate : {false, true}) {
            ForestSize size{hidden, 2, 4, 48};
            size.gated = true;
            size.routes_on_gate = on_gate;
            compare<Fixture>(size, Activation::silu, TieRule::zero_goes_left, 70, random.next(), count);
        }
    }
    report("gated", count);
    CHECK(count.hairlines * 100 < count.walks);
}

TEST_CASE("the shapes of the shipped models") {
    Count leaf, neuron;
    compare<LeafFixture>({384, 1, 5, 64}, Activation::gelu_erf, TieRule::zero_goes_left, 130, 1, leaf);
    compare<LeafFixture>({384, 4, 4, 32}, Activation::gelu_erf, TieRule::zero_goes_left, 40, 2, leaf);
    compare<NeuronFixture>({384, 32, 4, 0}, Activation::gelu_erf, TieRule::zero_goes_left, 40, 3, neuron);
    compare<NeuronFixture>({768, 1, 11, 0}, Activation::gelu_erf, TieRule::zero_goes_left, 40, 4, neuron);
    report("leaf forests", leaf);
    report("neuron forests", neuron);
}

TEST_CASE_TEMPLATE("one node, no node, and no tokens at all", Fixture, LeafFixture, NeuronFixture) {
    Count count;
    for (const size_t depth : {0, 1}) {
        for (const size_t tokens : {0, 1, 3, 100})
            compare<Fixture>({37, 1, depth, 9}, Activation::relu, TieRule::zero_goes_left, tokens,
                             depth + tokens, count);
    }
    report("one node", count);
}

TEST_CASE_TEMPLATE("in small integers everything is exact, ties included, under both rules", Fixture,
                   LeafFixture, NeuronFixture) {
    Random random(13);
    for (const TieRule tie : {TieRule::zero_goes_left, TieRule::zero_goes_right}) {
        Count count;
        size_t ties = 0;
        for (int i = 0; i < 40; ++i) {
            ForestSize size = random_size<Fixture>(random, random.between(1, 12));
            size.integers = true;
            size.gated = size.routes_on_gate = false;  // their products outgrow exact sums
            // relu keeps integers; their products stay below 2^24 in a leaf of this size.
            const auto activation = random.pick({Activation::none, Activation::relu});
            const uint64_t seed = random.next();
            compare<Fixture>(size, activation, tie, 50, seed, count);
            Random again(seed);
            Fixture fixture(size, again);
            fixture.forest.tie = tie;
            Buffer<float> x(50 * size.hidden), y(50 * size.hidden);
            fill(x, again, size, 1);
            fill(y, again, size, 1);
            const auto found = run_forest(fixture, Isa::scalar, x.data(), y.data(), 50);
            for (const float margin : found->margin)
                ties += margin == 0 ? 1 : 0;
        }
        report(named(tie), count);
        MESSAGE(ties, " walks of scalar's met an exact tie");
        CHECK(ties > 100);
        CHECK(count.hairlines == 0);
        CHECK(count.outputs.worst() == 0);
        CHECK(count.margins.worst() == 0);
    }
}
