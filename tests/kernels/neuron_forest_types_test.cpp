// Neuron forests with rows of every type, on every kernel of this machine, against double precision; and that
// neither the other tokens of a call nor its strategy (in order, by subtree, outputs by leaf) change a bit.
#include <algorithm>

#include "base/float16.h"
#include "tests/kernels/leaf_forest_run.h"

namespace {

using namespace espalier;
using namespace espalier::test;

struct NamedNeuronKernel {
    std::string name;
    NeuronForestKernel run;
};

// Also the kernels that the table of a processor with more than plain AVX-512 leaves out.
std::vector<NamedNeuronKernel> kernels(TensorType rows) {
    std::vector<NamedNeuronKernel> all;
    for (const Isa isa : available_isas())
        all.push_back({name_of(isa), kernel_table(isa).neuron_forest(rows)});
#if defined(ESPALIER_X86)
    if (cpu_has_bf16() && rows == TensorType::bf16)
        all.push_back({"avx512 without bf16", avx512::neuron_forest_bf16});
    if (cpu_has_vnni() && rows == TensorType::s8)
        all.push_back({"avx512 without vnni", avx512::neuron_forest_s8});
#endif
#if defined(ESPALIER_NEON)
    if (cpu_has_dotprod() && rows == TensorType::s8)
        all.push_back({"neon without dotprod", neon::neuron_forest_s8});
    if (cpu_has_arm_bf16() && rows == TensorType::bf16)
        all.push_back({"neon without bf16", neon::neuron_forest_bf16});
#endif
    return all;
}

// Rows stored in a type, and the values that they stand for.
struct Rows {
    Rows(TensorType type, size_t count, size_t hidden, Random& random, const ForestSize& size, double inputs)
        : tokens(type, count, hidden, random, size) {
        for (size_t r = 0; r < count; ++r) {
            for (size_t i = 0; i < hidden; ++i)
                tokens.values[r * hidden + i] /= static_cast<float>(std::sqrt(inputs));
            tokens.store(r);
        }
    }
    const float* row(size_t r) const { return tokens.values.data() + r * tokens.hidden; }
    TypedTokens tokens;
};

class Fixture {
   public:
    Fixture(TensorType type, const ForestSize& size, Random& random)
        : rows_(size.trees * ((size_t{2} << size.depth) - 1)),
          in_(type, rows_, size.hidden, random, size, static_cast<double>(size.hidden)),
          out_(type, rows_, size.hidden, random, size, static_cast<double>(size.depth + 1)),
          gate_(type, size.gated ? rows_ : 0, size.hidden, random, size, static_cast<double>(size.hidden)),
          in_bias_(rows_),
          out_bias_(size.hidden) {
        fill(in_bias_, random, size, 16);
        fill(out_bias_, random, size, 16);
        forest.hidden = size.hidden;
        forest.trees = size.trees;
        forest.depth = size.depth;
        forest.rows = type;
        forest.in = in_.tokens.stored.data();
        forest.out = out_.tokens.stored.data();
        forest.in_scale = in_.tokens.scale.data();
        forest.out_scale = out_.tokens.scale.data();
        forest.in_bias = size.up_bias ? in_bias_.data() : nullptr;
        forest.out_bias = size.output_bias ? out_bias_.data() : nullptr;
        if (!size.gated) return;
        forest.gate = gate_.tokens.stored.data();
        forest.gate_scale = gate_.tokens.scale.data();
        forest.routes_on_gate = size.routes_on_gate;
    }

    // y0 null: the forest overwrites.
    ExpectedToken expected(const float* x, const float* y0) const;
    NeuronForest forest;

   private:
    void add_tree(size_t k, const float* x, ExpectedToken& out, std::vector<double>& absolute,
                  std::vector<double>& carried) const;
    size_t rows_;
    Rows in_, out_, gate_;
    Buffer<float> in_bias_, out_bias_;
};

void Fixture::add_tree(size_t k, const float* x, ExpectedToken& out, std::vector<double>& absolute,
                       std::vector<double>& carried) const {
    const NeuronForest& f = forest;
    out.margin.push_back(INFINITY);
    out.margin_budget.push_back(0);
    std::vector<size_t> path;
    std::vector<double> a, slack;
    size_t node = 0;
    double largest = 0;
    for (size_t level = 0; level <= f.depth; ++level) {
        const size_t row = k * f.nodes() + node;
        const Dot z = dot(x, in_.row(row), 1, f.hidden, f.in_bias != nullptr ? f.in_bias[row] : 0);
        path.push_back(row);
        const Dot g = f.gated() ? dot(x, gate_.row(row), 1, f.hidden, 0) : z;
        const auto neuron = f.gated() ? gated_activation(f.activation, g, z) : activation_of(f.activation, z);
        const Dot& chooses = f.routes_on_gate ? g : z;
        a.push_back(neuron.value);
        slack.push_back(neuron.slack);
        const double row_scale = f.rows == TensorType::s8 ? f.out_scale[row] : 1;
        largest = std::max(largest, (std::fabs(a.back()) + slack.back()) * row_scale);
        if (level == f.depth) break;
        note_margin(out, chooses);
        node = 2 * node + (right(chooses.value, f.tie) ? 2 : 1);
    }
    out.leaf.push_back(static_cast<uint32_t>(node - ((size_t{1} << f.depth) - 1)));
    for (size_t n = 0; n < path.size(); ++n) {
        // bf16 keeps 8 bits; 8-bit activations are within half a step of largest / 127, in units of the row.
        if (f.rows == TensorType::bf16) slack[n] += std::fabs(a[n]) * 0x1.01p-8;
        if (f.rows == TensorType::s8 && largest > 0)
            slack[n] += 0.5001 * largest / 127 / f.out_scale[path[n]];
        for (size_t i = 0; i < f.hidden; ++i) {
            const double weight = out_.row(path[n])[i];
            out.y[i] += a[n] * weight;
            absolute[i] += std::fabs(a[n] * weight);
            if (weight != 0) carried[i] += slack[n] * std::fabs(weight);
        }
    }
}

ExpectedToken Fixture::expected(const float* x, const float* y0) const {
    const NeuronForest& f = forest;
    ExpectedToken out;
    std::vector<double> absolute(f.hidden), carried(f.hidden);
    for (size_t i = 0; i < f.hidden; ++i) {
        const double bias = f.out_bias != nullptr ? f.out_bias[i] : 0, before = y0 != nullptr ? y0[i] : 0;
        out.y.push_back(before + bias);
        absolute[i] = std::fabs(before) + std::fabs(bias);
    }
    for (size_t k = 0; k < f.trees; ++k)
        add_tree(k, x, out, absolute, carried);
    for (size_t i = 0; i < f.hidden; ++i)
        out.budget.push_back(carried[i] + sum_budget(f.trees * (f.depth + 1) + 2, absolute[i]));
    return out;
}

std::unique_ptr<ForestResult> call(const NeuronForest& f, NeuronForestKernel kernel, const TypedTokens& x,
                                   size_t first, size_t tokens, const float* y0) {
    auto result = std::make_unique<ForestResult>(tokens, f.hidden, f.trees, scratch_bytes(f, tokens));
    for (size_t i = 0; i < tokens * f.hidden; ++i)
        result->y[i] = y0 != nullptr ? y0[first * f.hidden + i] : NAN;
    ForestCall call;
    call.x = x.stored.data() + first * f.hidden * bytes_of(f.rows);
    call.x_scale = x.scale.data() + first;
    call.tokens = tokens;
    call.y = result->y.data();
    call.accumulate = y0 != nullptr;
    call.routes = result->routes();
    call.scratch = result->scratch.data();
    kernel(f, call);
    CHECK(result->intact());
    return result;
}

struct Count {
    size_t walks = 0, hairlines = 0, elsewhere = 0;
    Budget outputs;
};

void compare(TensorType type, const ForestSize& size, Activation activation, TieRule tie, size_t tokens,
             bool accumulate, uint64_t seed, Count& count) {
    Random random(seed);
    Fixture fixture(type, size, random);
    NeuronForest& f = fixture.forest;
    f.activation = activation;
    f.tie = tie;
    const TypedTokens x(type, tokens, size.hidden, random, size);
    Buffer<float> before(tokens * size.hidden);
    fill(before, random, size, 1);
    const float* y0 = accumulate ? before.data() : nullptr;
    CAPTURE(named(type));
    CAPTURE(size.hidden);
    CAPTURE(size.trees);
    CAPTURE(size.depth);
    CAPTURE(tokens);
    CAPTURE(named(activation));
    std::vector<ExpectedToken> expected;
    for (size_t t = 0; t < tokens; ++t)
        expected.push_back(
            fixture.expected(x.values.data() + t * size.hidden, accumulate ? y0 + t * size.hidden : nullptr));
    for (const NamedNeuronKernel& kernel : kernels(type)) {
        CAPTURE(kernel.name);
        const auto found = call(f, kernel.run, x, 0, tokens, y0);
        for (size_t t = 0; t < tokens; ++t) {
            bool same = true, thin = false;
            for (size_t k = 0; k < f.trees; ++k) {
                const bool equal = found->leaf[t * f.trees + k] == expected[t].leaf[k];
                const bool hair = expected[t].margin[k] < hairline;
                REQUIRE((equal || hair));
                same = same && equal;
                thin = thin || hair;
                ++count.walks;
                count.hairlines += hair ? 1 : 0;
            }
            count.elsewhere += same ? 0 : 1;
            if (thin) continue;
            for (size_t i = 0; i < size.hidden; ++i)
                count.outputs.add(found->y[t * size.hidden + i], expected[t].y[i], expected[t].budget[i]);
        }
        REQUIRE(count.outputs.worst() <= 1);
        // Parts of the call, at odd places, give the same bits.
        for (size_t first = 0; first < tokens; first += tokens / 3 + 1) {
            const size_t some = std::min<size_t>(tokens - first, 1 + first % 7);
            const auto part = call(f, kernel.run, x, first, some, y0);
            REQUIRE(same_results(*part, *found, first, some, size.hidden, f.trees));
        }
    }
}

void report(const std::string& what, const Count& count) {
    MESSAGE(what, ": ", count.walks, " walks, ", count.hairlines, " hairlines, ", count.elsewhere,
            " of them elsewhere; largest share of its budget ", count.outputs.worst());
    CHECK(count.hairlines * 50 <= count.walks);
}

constexpr TensorType types[] = {TensorType::f32, TensorType::bf16, TensorType::s8};

}  // namespace

TEST_CASE("random shapes in every type") {
    Random random(31);
    for (const TensorType type : types) {
        Count count;
        for (size_t hidden = 1; hidden <= 140; hidden += random.between(1, 4)) {
            ForestSize size{hidden, random.between(1, 6), random.between(0, 6)};
            size.up_bias = random.coin();
            size.output_bias = random.coin();
            size.gated = random.coin();
            size.routes_on_gate = size.gated && random.coin();
            compare(type, size, all_activations[random.between(0, 5)],
                    random.pick({TieRule::zero_goes_left, TieRule::zero_goes_right}), random.between(1, 40),
                    random.coin(), random.next(), count);
        }
        report(named(type), count);
    }
}

TEST_CASE("model widths and odd ones beside them, in every type") {
    Random random(32);
    for (const TensorType type : types) {
        Count count;
        for (const size_t hidden : {383, 384, 385, 767, 768, 769, 1024})
            compare(type, {hidden, random.between(1, 3), random.between(2, 5)}, Activation::gelu_erf,
                    TieRule::zero_goes_left, 21, random.coin(), random.next(), count);
        compare(type, {768, 1, 11}, Activation::gelu_erf, TieRule::zero_goes_left, 9, false, random.next(),
                count);
        report(named(type), count);
    }
}

TEST_CASE("large calls: by subtree, outputs by leaf, streamed outputs") {
    Random random(33);
    for (const TensorType type : types) {
        Count count;
        for (const size_t tokens : {255, 256, 300, 700}) {
            compare(type, {40, 1, 6}, Activation::gelu_erf, TieRule::zero_goes_left, tokens, false,
                    random.next(), count);
            compare(type, {33, 1, 8}, Activation::silu, TieRule::zero_goes_right, tokens, true, random.next(),
                    count);
            compare(type, {24, 3, 7}, Activation::gelu_tanh, TieRule::zero_goes_left, tokens, random.coin(),
                    random.next(), count);
            for (const size_t trees : {1, 2})
                compare(type, {40, trees, 6, 0, true, false, false, 0, true, random.coin()}, Activation::silu,
                        TieRule::zero_goes_left, tokens, random.coin(), random.next(), count);
        }
        compare(type, {1024, 1, 7}, Activation::gelu_erf, TieRule::zero_goes_left, 1600, false, random.next(),
                count);
        report(named(type), count);
    }
}

TEST_CASE("all tokens of a large call in one leaf") {
    Random random(34);
    for (const TensorType type : types) {
        Fixture fixture(type, {48, 1, 7}, random);
        const NeuronForest& f = fixture.forest;
        for (size_t n = 0; n < f.nodes(); ++n)
            const_cast<float*>(f.in_bias)[n] = 1000;
        const TypedTokens x(type, 600, 48, random, {48, 1, 7});
        for (const NamedNeuronKernel& kernel : kernels(type)) {
            CAPTURE(kernel.name);
            const auto found = call(f, kernel.run, x, 0, 600, nullptr);
            Budget budget;
            for (size_t t = 0; t < 600; ++t) {
                REQUIRE(found->leaf[t] == 127);
                const ExpectedToken expected = fixture.expected(x.values.data() + t * 48, nullptr);
                for (size_t i = 0; i < 48; ++i)
                    budget.add(found->y[t * 48 + i], expected.y[i], expected.budget[i]);
            }
            CHECK(budget.worst() <= 1);
        }
    }
}

TEST_CASE("8-bit tests are the same integers on every instruction set") {
    Random random(35);
    Fixture fixture(TensorType::s8, {769, 2, 5}, random);
    fixture.forest.in_bias = nullptr;
    const TypedTokens x(TensorType::s8, 300, 769, random, {769, 2, 5});
    const auto all = kernels(TensorType::s8);
    const auto scalar = call(fixture.forest, all[0].run, x, 0, 300, nullptr);
    for (const NamedNeuronKernel& kernel : all) {
        const auto found = call(fixture.forest, kernel.run, x, 0, 300, nullptr);
        for (size_t i = 0; i < 600; ++i) {
            CHECK(found->leaf[i] == scalar->leaf[i]);
            CHECK(found->margin[i] == scalar->margin[i]);
        }
    }
}

TEST_CASE("NaN and infinity in one token") {
    Random random(36);
    const ForestSize size{130, 2, 7};
    for (const TensorType type : {TensorType::bf16, TensorType::s8}) {
        Fixture fixture(type, size, random);
        TypedTokens clean(type, 300, size.hidden, random, size), sick(type, 300, size.hidden, random, size);
        std::copy_n(clean.stored.data(), 300 * size.hidden * bytes_of(type), sick.stored.data());
        std::copy_n(clean.scale.data(), 300, sick.scale.data());
        for (const float value : {NAN, INFINITY}) {
            if (type == TensorType::s8) {
                sick.scale[7] = value;
            } else {
                const uint16_t stored = bfloat_from_float(value);
                std::memcpy(sick.stored.data() + (7 * size.hidden + 5) * 2, &stored, 2);
            }
            const auto scalar = call(fixture.forest, kernels(type)[0].run, sick, 0, 300, nullptr);
            for (const NamedNeuronKernel& kernel : kernels(type)) {
                CAPTURE(kernel.name);
                const auto whole = call(fixture.forest, kernel.run, clean, 0, 300, nullptr);
                const auto found = call(fixture.forest, kernel.run, sick, 0, 300, nullptr);
                for (size_t t = 0; t < 300; ++t) {
                    if (t == 7) continue;
                    REQUIRE(same_bits(found->y.data() + t * size.hidden, whole->y.data() + t * size.hidden,
                                      size.hidden));
                }
                for (size_t k = 0; k < size.trees; ++k) {
                    CHECK(found->leaf[7 * size.trees + k] == scalar->leaf[7 * size.trees + k]);
                    if (std::isnan(value)) CHECK(found->leaf[7 * size.trees + k] == 0);
                    CHECK(same_class(found->margin[7 * size.trees + k], scalar->margin[7 * size.trees + k]));
                }
                size_t finite = 0;
                for (size_t i = 0; i < size.hidden; ++i)
                    finite += std::isfinite(found->y[7 * size.hidden + i]) ? 1 : 0;
                CHECK(finite == 0);
            }
        }
    }
}
