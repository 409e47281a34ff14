// One forest on the caller's tensors against double precision, on every instruction set, and what it refuses.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "espalier/forest.h"
#include "kernels/cpu/isa.h"
#include "tests/activation_reference.h"

namespace {

using Floats = std::vector<float>;

struct Shape {
    espalier_forest_kind kind;
    uint32_t hidden, trees, depth, leaf_width;
    size_t leaves() const { return size_t{1} << depth; }
    size_t nodes() const { return kind == ESPALIER_NEURON_FOREST ? 2 * leaves() - 1 : leaves() - 1; }
};

struct Tensors {
    Floats node_weight, node_bias, up, up_bias, down, output_bias;

    explicit Tensors(const Shape& s) {
        std::mt19937 random(7);
        std::normal_distribution<float> normal;
        const auto fill = [&](Floats& v, size_t count, float size) {
            v.resize(count);
            for (float& value : v)
                value = size * normal(random);
        };
        const bool leaf = s.kind == ESPALIER_LEAF_FOREST;
        const float narrow = 1 / std::sqrt(static_cast<float>(s.hidden));
        const size_t neurons = leaf ? s.trees * s.leaves() * s.leaf_width : s.trees * s.nodes();
        fill(node_weight, s.trees * s.nodes() * s.hidden, narrow);
        fill(node_bias, s.trees * s.nodes(), 0.1F);
        fill(down, neurons * s.hidden, 0.3F);
        if (leaf) fill(up, neurons * s.hidden, narrow);
        if (leaf) fill(up_bias, neurons, 0.1F);
        fill(output_bias, (leaf ? s.trees * s.leaves() : 1) * s.hidden, 0.1F);
    }
    espalier_forest_weights weights() const {
        const auto data = [](const Floats& v) { return v.empty() ? nullptr : v.data(); };
        return {sizeof(espalier_forest_weights),
                data(node_weight),
                data(node_bias),
                data(up),
                data(up_bias),
                data(down),
                data(output_bias)};
    }
};

double dot(const float* a, const float* b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i)
        sum += double{a[i]} * double{b[i]};
    return sum;
}

struct Walk {
    size_t leaf = 0;
    double margin = INFINITY;
};

// y += one tree's output for one x.
Walk reference(const Shape& s, const Tensors& t, size_t tree, const float* x, std::vector<double>& y) {
    const auto act = [](double v) { return espalier::test::activated(espalier::Activation::gelu_erf, v); };
    const auto add = [&](double factor, const float* row) {
        for (size_t i = 0; i < s.hidden; ++i)
            y[i] += factor * double{row[i]};
    };
    const bool neuron = s.kind == ESPALIER_NEURON_FOREST;
    Walk walk;
    size_t node = 0;
    for (size_t level = 0; level < s.depth + (neuron ? 1 : 0); ++level) {
        const size_t row = tree * s.nodes() + node;
        const double z = dot(x, t.node_weight.data() + row * s.hidden, s.hidden) + double{t.node_bias[row]};
        walk.margin = std::fmin(walk.margin, std::fabs(z));
        if (neuron) add(act(z), t.down.data() + row * s.hidden);
        if (level < s.depth) node = 2 * node + 1 + (z > 0 ? 1 : 0);
    }
    walk.leaf = node + 1 - s.leaves();
    if (neuron) return walk;
    const size_t group = tree * s.leaves() + walk.leaf;
    for (size_t n = 0; n < s.leaf_width; ++n) {
        const size_t row = group * s.leaf_width + n;
        add(act(dot(x, t.up.data() + row * s.hidden, s.hidden) + double{t.up_bias[row]}),
            t.down.data() + row * s.hidden);
    }
    add(1, t.output_bias.data() + group * s.hidden);
    return walk;
}

espalier_forest_options options_of(const Shape& s, const char* isa) {
    espalier_forest_options options;
    espalier_forest_options_init(&options);
    options.kind = s.kind;
    options.hidden = s.hidden;
    options.trees = s.trees;
    options.depth = s.depth;
    options.leaf_width = s.leaf_width;
    options.isa = isa;
    return options;
}

void compare(const Shape& s, const char* isa, size_t tokens, int threads, bool add) {
    const Tensors tensors(s);
    const auto options = options_of(s, isa);
    const auto weights = tensors.weights();
    espalier_forest* forest = nullptr;
    espalier_error error{};
    REQUIRE_MESSAGE(espalier_forest_create(&options, &weights, &forest, &error) == ESPALIER_OK,
                    error.message);
    CHECK(std::string(espalier_forest_isa(forest)) == isa);
    // No padding behind x and y, and no alignment beyond a float's.
    Floats x(tokens * s.hidden + 1), y(tokens * s.hidden + 1, 0.5F), margin(tokens * s.trees);
    std::vector<uint32_t> leaf(tokens * s.trees);
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    for (float& value : x)
        value = normal(random);
    espalier_forest_call call;
    espalier_forest_call_init(&call);
    call.x = x.data() + 1;
    call.y = y.data() + 1;
    call.tokens = tokens;
    call.threads = threads;
    call.add = add ? 1 : 0;
    call.leaf = leaf.data();
    call.margin = margin.data();
    REQUIRE_MESSAGE(espalier_forest_run(forest, &call, &error) == ESPALIER_OK, error.message);
    for (size_t i = 0; i < tokens; ++i) {
        std::vector<double> expected(s.hidden, add ? 0.5 : 0);
        bool hairline = false;
        for (size_t k = 0; k < s.trees; ++k) {
            const Walk walk = reference(s, tensors, k, call.x + i * s.hidden, expected);
            hairline = hairline || walk.margin < 1e-4;
            if (walk.margin >= 1e-4) CHECK(leaf[i * s.trees + k] == walk.leaf);
        }
        if (s.kind == ESPALIER_NEURON_FOREST) {
            for (size_t h = 0; h < s.hidden; ++h)
                expected[h] += double{tensors.output_bias[h]};
        }
        for (size_t h = 0; h < s.hidden && !hairline; ++h)
            CHECK(double{call.y[i * s.hidden + h]} == doctest::Approx(expected[h]).epsilon(1e-4));
    }
    CHECK(y[0] == 0.5F);
    // The caller's scratch, and nothing asked for, gives the same.
    size_t bytes = 0;
    REQUIRE(espalier_forest_scratch_bytes(forest, tokens, threads, &bytes, &error) == ESPALIER_OK);
    std::vector<char> memory(bytes + 64);
    Floats again(tokens * s.hidden, 0.5F);
    call.scratch = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    call.scratch_bytes = bytes;
    call.y = again.data();
    call.leaf = nullptr;
    call.margin = nullptr;
    REQUIRE_MESSAGE(espalier_forest_run(forest, &call, &error) == ESPALIER_OK, error.message);
    CHECK(std::equal(again.begin(), again.end(), y.begin() + 1));
    espalier_forest_destroy(forest);
}

std::string refusal(const espalier_forest_options& options, const espalier_forest_weights& weights) {
    espalier_forest* forest = nullptr;
    espalier_error error{};
    CHECK(espalier_forest_create(&options, &weights, &forest, &error) == ESPALIER_INVALID_ARGUMENT);
    CHECK(forest == nullptr);
    return error.message;
}

}  // namespace

TEST_CASE("both kinds of forest on every instruction set") {
    for (const espalier::Isa isa : espalier::available_isas()) {
        for (const size_t tokens : {1, 3, 40, 300}) {
            compare({ESPALIER_LEAF_FOREST, 48, 2, 4, 8}, name_of(isa), tokens, 1, false);
            compare({ESPALIER_LEAF_FOREST, 37, 1, 3, 5}, name_of(isa), tokens, 2, true);
            compare({ESPALIER_LEAF_FOREST, 16, 1, 0, 3}, name_of(isa), tokens, 1, false);
            compare({ESPALIER_NEURON_FOREST, 48, 1, 7, 0}, name_of(isa), tokens, 1, false);
            compare({ESPALIER_NEURON_FOREST, 37, 3, 4, 0}, name_of(isa), tokens, 2, true);
        }
    }
}

TEST_CASE("what is refused is named") {
    const Shape leaf{ESPALIER_LEAF_FOREST, 16, 1, 2, 4}, neuron{ESPALIER_NEURON_FOREST, 16, 1, 2, 0};
    const Tensors leaf_tensors(leaf), neuron_tensors(neuron);
    auto options = options_of(leaf, "scalar");
    auto weights = leaf_tensors.weights();
    weights.up = nullptr;
    CHECK(refusal(options, weights) == "weights.up: expected a pointer, found null");
    weights = leaf_tensors.weights();
    options.depth = 25;
    CHECK(refusal(options, weights) == "depth: expected 0 to 24, found 25");
    options = options_of(leaf, "scalar");
    options.activation = "gelu";
    CHECK(refusal(options, weights) ==
          "activation: expected none, gelu_erf, gelu_tanh, relu, silu or tanh, found gelu");
    options = options_of(neuron, "scalar");
    options.leaf_width = 4;
    CHECK(refusal(options, neuron_tensors.weights()) == "leaf_width: expected 0 to 0, found 4");
    options = options_of(neuron, "scalar");
    CHECK(refusal(options, weights) == "weights.up: expected null for a neuron forest");

    const auto right = neuron_tensors.weights();
    espalier_forest* forest = nullptr;
    espalier_error error{};
    REQUIRE(espalier_forest_create(&options, &right, &forest, &error) == ESPALIER_OK);
    espalier_forest_call call;
    espalier_forest_call_init(&call);
    call.tokens = 1;
    CHECK(espalier_forest_run(forest, &call, &error) == ESPALIER_INVALID_ARGUMENT);
    CHECK(std::string(error.message) == "call.x: expected a pointer, found null");
    Floats x(16), y(16);
    call.x = x.data();
    call.y = y.data();
    call.threads = 0;
    CHECK(espalier_forest_run(forest, &call, &error) == ESPALIER_INVALID_ARGUMENT);
    CHECK(std::string(error.message) == "threads: expected 1 to 1024, found 0");
    call.threads = 1;
    call.scratch = x.data();
    CHECK(espalier_forest_run(forest, &call, &error) == ESPALIER_INVALID_ARGUMENT);
    call.scratch = nullptr;
    call.tokens = 0;
    CHECK(espalier_forest_run(forest, &call, &error) == ESPALIER_OK);
    espalier_forest_destroy(forest);
    espalier_forest_destroy(nullptr);
}
