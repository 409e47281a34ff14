// Leaf forests with rows of every type, with and without shared neurons, on every instruction set, against
// double precision; and what must hold to the bit.
#include "tests/kernels/leaf_forest_run.h"

namespace {

using namespace espalier;
using namespace espalier::test;

struct Form {
    TensorType rows, nodes;
};
constexpr Form forms[] = {{TensorType::f32, TensorType::f32},
                          {TensorType::bf16, TensorType::bf16},
                          {TensorType::bf16, TensorType::f32},
                          {TensorType::s8, TensorType::bf16},
                          {TensorType::s8, TensorType::f32}};

struct Count {
    size_t walks = 0, hairlines = 0;
    Budget outputs, margins;
};

void compare(const Form& form, const ForestSize& size, Activation activation, size_t tokens, bool accumulate,
             uint64_t seed, Count& count) {
    CAPTURE(named(form.rows));
    CAPTURE(named(form.nodes));
    CAPTURE(size.hidden);
    CAPTURE(size.trees);
    CAPTURE(size.depth);
    CAPTURE(size.leaf_width);
    CAPTURE(size.shared_width);
    CAPTURE(size.gated);
    CAPTURE(tokens);
    CAPTURE(named(activation));
    Random random(seed);
    LeafFixture fixture(size, random, form.rows, form.nodes);
    fixture.forest.activation = activation;
    const TypedTokens x(form.rows, tokens, size.hidden, random, size);
    Buffer<float> y(tokens * size.hidden);
    if (accumulate) fill(y, random, size, 1);
    std::vector<ExpectedToken> expected;
    for (size_t t = 0; t < tokens; ++t)
        expected.push_back(fixture.expected(x.values.data() + t * size.hidden, y.data() + t * size.hidden));
    for (const NamedKernel& kernel : leaf_kernels(form.rows)) {
        CAPTURE(kernel.name);
        const auto found = run_leaves(fixture, kernel, x, accumulate ? y.data() : nullptr, 0, tokens);
        for (size_t t = 0; t < tokens; ++t) {
            for (size_t k = 0; k < size.trees; ++k) {
                ++count.walks;
                if (expected[t].margin[k] < hairline) {
                    ++count.hairlines;
                    continue;
                }
                const size_t at = t * size.trees + k;
                REQUIRE(found->leaf[at] == expected[t].leaf[k]);
                if (!std::isinf(expected[t].margin[k]))
                    count.margins.add(found->margin[at], expected[t].margin[k], expected[t].margin_budget[k]);
            }
            if (expected[t].hairline_walk(false)) continue;
            for (size_t i = 0; i < size.hidden; ++i)
                count.outputs.add(found->y[t * size.hidden + i], expected[t].y[i], expected[t].budget[i]);
        }
        REQUIRE(count.outputs.worst() <= 1);
        REQUIRE(count.margins.worst() <= 1);
    }
}

ForestSize random_size(Random& random, size_t hidden) {
    ForestSize size;
    size.hidden = hidden;
    size.trees = random.between(1, 3);
    size.depth = random.between(0, 4);
    size.leaf_width = random.pick<size_t>({0, 1, 2, 5, 15, 16, 17, 24, 31, 32, 64, 65, 96});
    size.shared_width = random.pick<size_t>({0, 0, 1, 7, 16, 32, 33, 64, 70});
    size.up_bias = random.coin();
    size.output_bias = random.coin();
    size.gated = size.shared_width == 0 && random.coin();
    return size;
}

}  // namespace

TEST_CASE("rows of every type, random shapes") {
    for (const Form& form : forms) {
        Count count;
        Random random(31);
        for (size_t hidden = 1; hidden <= 70; hidden += hidden < 20 ? 1 : 3) {
            for (const size_t tokens : {size_t{1}, random.between(2, 60)})
                compare(form, random_size(random, hidden), all_activations[random.between(0, 5)], tokens,
                        random.coin(), random.next(), count);
        }
        for (const size_t hidden : {383, 384, 769})
            compare(form, {hidden, 1, 3, 64, true, true, false, 64}, Activation::gelu_erf, 120, true,
                    random.next(), count);
        compare(form, {385, 2, 3, 40, true, true, false, 0, true}, Activation::silu, 120, false,
                random.next(), count);
        MESSAGE(named(form.rows), " rows, ", named(form.nodes), " nodes: ", count.walks, " walks, ",
                count.hairlines, " hairlines (exempt); largest share of its budget: output ",
                count.outputs.worst(), ", margin ", count.margins.worst());
        CHECK(count.hairlines * 100 < count.walks);
    }
}

TEST_CASE("a token alone has the bits it has in any batch, in every type") {
    constexpr size_t tokens = 131;
    for (const Form& form : forms) {
        for (const size_t hidden : {45, 64}) {
            for (const size_t shared : {0, 20}) {
                Random random(32);
                const ForestSize size{hidden, 2, 2, 33, true, true, false, shared};
                LeafFixture fixture(size, random, form.rows, form.nodes);
                const TypedTokens x(form.rows, tokens, hidden, random, size);
                Buffer<float> y(tokens * hidden);
                fill(y, random, size, 1);
                for (const NamedKernel& kernel : leaf_kernels(form.rows)) {
                    CAPTURE(kernel.name);
                    CAPTURE(named(form.rows));
                    const auto whole = run_leaves(fixture, kernel, x, y.data(), 0, tokens);
                    for (size_t t = 0; t < tokens; t += 3) {
                        const size_t count = t % 2 == 0 ? 1 : std::min(tokens - t, random.between(1, 40));
                        const auto part = run_leaves(fixture, kernel, x, y.data() + t * hidden, t, count);
                        REQUIRE(same_results(*part, *whole, t, count, hidden, size.trees));
                    }
                }
            }
        }
    }
}

TEST_CASE("walks first and then leaves, some at a time, give the bits of one call") {
    constexpr size_t tokens = 131, hidden = 45;
    const size_t alone[] = {8}, three[] = {3, 3, 4, 8};
    for (const Form& form : forms) {
        for (const bool accumulate : {true, false}) {
            Random random(35);
            const ForestSize size{hidden, 1, 3, 33, true, true, false, 20};
            LeafFixture fixture(size, random, form.rows, form.nodes);
            const TypedTokens x(form.rows, tokens, hidden, random, size);
            Buffer<float> y(tokens * hidden);
            fill(y, random, size, 1);
            const float* y0 = accumulate ? y.data() : nullptr;
            for (const NamedKernel& kernel : leaf_kernels(form.rows)) {
                CAPTURE(kernel.name);
                CAPTURE(named(form.rows));
                const auto whole = run_leaves(fixture, kernel, x, y0, 0, tokens);
                for (const std::span<const size_t> ends : {std::span<const size_t>(alone), {three}}) {
                    const auto parts = run_leaves(fixture, kernel, x, y0, 0, tokens, ends);
                    CHECK(same_results(*parts, *whole, 0, tokens, hidden, 1));
                }
            }
        }
    }
}

TEST_CASE("8-bit: extreme integers give the same bits on every instruction set") {
    // Every product at its largest, of either sign; without an activation nothing but integers decides.
    for (const size_t hidden : {1, 3, 64, 771}) {
        Random random(33);
        const ForestSize size{hidden, 1, 1, 37, false, false, false, 5};
        LeafFixture fixture(size, random, TensorType::s8, TensorType::f32);
        fixture.forest.activation = Activation::none;
        fixture.forest.rotated_activations = false;
        TypedTokens x(TensorType::s8, 40, hidden, random, size);
        for (size_t t = 0; t < x.tokens; ++t) {
            for (size_t i = 0; i < hidden; ++i)
                x.values[t * hidden + i] = t % 3 == 0 ? 1.0F : (random.coin() ? 1.0F : -1.0F);
            x.store(t);
        }
        const auto scalar = run_leaves(fixture, leaf_kernels(TensorType::s8)[0], x, nullptr, 0, x.tokens);
        for (const NamedKernel& kernel : leaf_kernels(TensorType::s8)) {
            CAPTURE(kernel.name);
            const auto found = run_leaves(fixture, kernel, x, nullptr, 0, x.tokens);
            for (size_t t = 0; t < x.tokens; ++t) {
                if (scalar->margin[t] < hairline) continue;
                for (size_t i = 0; i < hidden; ++i) {
                    // The same integers; a fused multiply-add may round the two scales differently.
                    const float expected = scalar->y[t * hidden + i];
                    CHECK(found->y[t * hidden + i] == doctest::Approx(expected).epsilon(1e-6));
                }
            }
        }
    }
}

TEST_CASE("tokens that all meet in one leaf; NaN and infinite tokens are felt by no other") {
    constexpr size_t hidden = 51, tokens = 110;
    for (const Form& form : forms) {
        Random random(34);
        const ForestSize size{hidden, 1, 3, 20, true, true, false, 30};
        LeafFixture fixture(size, random, form.rows, form.nodes);
        for (float& threshold : fixture.thresholds())
            threshold = -1000;
        TypedTokens x(form.rows, tokens, hidden, random, size);
        for (const NamedKernel& kernel : leaf_kernels(form.rows)) {
            CAPTURE(kernel.name);
            CAPTURE(named(form.rows));
            const auto clean = run_leaves(fixture, kernel, x, nullptr, 0, tokens);
            for (const uint32_t leaf : clean->leaf)
                REQUIRE(leaf == 7);
            TypedTokens sick(form.rows, tokens, hidden, random, size);
            std::copy(x.stored.begin(), x.stored.end(), sick.stored.begin());
            std::copy(x.scale.begin(), x.scale.end(), sick.scale.begin());
            constexpr size_t at = 47;
            // 8-bit values are always numbers: there a scale is not.
            const uint32_t nan = 0x7fc07fc0u;
            if (form.rows == TensorType::s8) {
                sick.scale[at] = NAN;
            } else {
                std::memcpy(sick.stored.data() + (at * hidden + 50) * bytes_of(form.rows), &nan,
                            bytes_of(form.rows));
            }
            const auto found = run_leaves(fixture, kernel, sick, nullptr, 0, tokens);
            CHECK(found->leaf[at] == 0);
            CHECK(std::isnan(found->margin[at]));
            for (size_t t = 0; t < tokens; ++t) {
                if (t != at)
                    REQUIRE(same_bits(found->y.data() + t * hidden, clean->y.data() + t * hidden, hidden));
            }
            for (size_t i = 0; i < hidden; ++i)
                CHECK(std::isnan(found->y[at * hidden + i]));
        }
    }
}
