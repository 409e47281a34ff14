// Norms of every instruction set against double precision.
#include "kernels/norm/norm.h"

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scalar.h"
#include "tests/kernels/support.h"

namespace {

using namespace espalier;
using namespace espalier::test;

struct Fixture {
    Fixture(size_t hidden, size_t tokens, float mean, Random& random)
        : weight(hidden), bias(hidden), x(tokens * hidden), residual(tokens * hidden) {
        fill_normal(weight, random);
        fill_normal(bias, random);
        fill_normal(x, random);
        fill_normal(residual, random);
        for (float& value : x)
            value += mean;
        norm.hidden = hidden;
        norm.epsilon = 1e-12F;
        norm.weight = weight.data();
    }
    Buffer<float> weight, bias, x, residual;
    NormWeights norm;
};

// Rounding of the sum, of the mean and of the deviation, each relative to what it is divided by.
void compare_row(const NormWeights& n, const float* x, const float* residual, const float* found,
                 Budget& budget) {
    const auto count = static_cast<double>(n.hidden);
    std::vector<double> value(n.hidden);
    double sum = 0, absolute = 0, squares = 0;
    for (size_t i = 0; i < n.hidden; ++i) {
        value[i] = residual != nullptr ? static_cast<double>(x[i]) + residual[i] : x[i];
        sum += value[i];
        absolute += std::fabs(value[i]);
    }
    const double mean = n.rms ? 0 : sum / count;
    for (const double v : value)
        squares += (v - mean) * (v - mean);
    const double scale = 1 / std::sqrt(squares / count + n.epsilon);
    for (size_t i = 0; i < n.hidden; ++i) {
        const double normed = (value[i] - mean) * scale;
        const double expected = normed * n.weight[i] + (n.bias != nullptr ? n.bias[i] : 0);
        const double centring = sum_budget(n.hidden, absolute / count) + 4 * unit * std::fabs(value[i]);
        const double allowed = std::fabs(n.weight[i]) * scale * centring * (1 + std::fabs(normed)) +
                               sum_budget(n.hidden, std::fabs(normed * n.weight[i])) +
                               4 * unit * std::fabs(expected);
        budget.add(found[i], expected, allowed);
    }
}

void compare(size_t hidden, size_t tokens, bool rms, bool bias, bool residual, float mean, uint64_t seed,
             Budget& budget) {
    Random random(seed);
    Fixture f(hidden, tokens, mean, random);
    f.norm.rms = rms;
    f.norm.bias = bias ? f.bias.data() : nullptr;
    const float* r = residual ? f.residual.data() : nullptr;
    for (const Isa isa : available_isas()) {
        Buffer<float> y(tokens * hidden);
        kernel_table(isa).norm(f.norm, f.x.data(), r, y.data(), {}, tokens);
        CHECK(y.intact());
        for (size_t t = 0; t < tokens; ++t)
            compare_row(f.norm, f.x.data() + t * hidden, residual ? r + t * hidden : nullptr,
                        y.data() + t * hidden, budget);
        CAPTURE(hidden);
        CAPTURE(tokens);
        CAPTURE(named(isa));
        REQUIRE(budget.worst() <= 1);
    }
    CHECK((f.x.intact() && f.residual.intact() && f.weight.intact() && f.bias.intact()));
}

}  // namespace

TEST_CASE("norms stay within their budget") {
    Budget budget;
    Random random(41);
    for (size_t hidden = 1; hidden <= 70; ++hidden) {
        for (const size_t tokens : {size_t{0}, size_t{1}, random.between(2, 9)}) {
            const uint64_t seed = random.next();
            for (int form = 0; form < 8; ++form) {
                // With one value there is no deviation, and noise in the mean is all there is to scale.
                if (hidden == 1 && (form & 1) == 0) continue;
                compare(hidden, tokens, (form & 1) != 0, (form & 2) != 0, (form & 4) != 0,
                        random.uniform(-3, 3), seed, budget);
            }
        }
    }
    for (const size_t hidden : {383, 384, 768, 769, 1023})
        compare(hidden, 5, false, true, true, 1, hidden, budget);
    // A mean far from zero costs accuracy in proportion, and only so much.
    compare(384, 5, false, true, false, 1000, 1, budget);
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("norms in place, of either operand, have the same bits") {
    Random random(42);
    for (const size_t hidden : {1, 5, 16, 45, 384}) {
        Fixture f(hidden, 7, 0.5F, random);
        f.norm.bias = f.bias.data();
        for (const Isa isa : available_isas()) {
            const NormKernel norm = kernel_table(isa).norm;
            Buffer<float> apart(7 * hidden), over_x(7 * hidden), over_residual(7 * hidden);
            std::copy(f.x.begin(), f.x.end(), over_x.begin());
            std::copy(f.residual.begin(), f.residual.end(), over_residual.begin());
            norm(f.norm, f.x.data(), f.residual.data(), apart.data(), {}, 7);
            norm(f.norm, over_x.data(), f.residual.data(), over_x.data(), {}, 7);
            norm(f.norm, f.x.data(), over_residual.data(), over_residual.data(), {}, 7);
            CHECK(same_bits(apart.data(), over_x.data(), 7 * hidden));
            CHECK(same_bits(apart.data(), over_residual.data(), 7 * hidden));
            // A row alone.
            Buffer<float> row(hidden);
            norm(f.norm, f.x.data() + 3 * hidden, f.residual.data() + 3 * hidden, row.data(), {}, 1);
            CHECK(same_bits(row.data(), apart.data() + 3 * hidden, hidden));
        }
    }
}

// Rows are turned and rounded a few at a time, on their way out of the norm: as round() has them of y, and as
// its specification has them, one by one.
void compare_rounded(Isa isa, const Fixture& f, size_t hidden, size_t tokens) {
    CAPTURE(hidden);
    CAPTURE(tokens);
    const KernelTable& table = kernel_table(isa);
    for (const TensorType type : {TensorType::bf16, TensorType::s8}) {
        const size_t bytes = tokens * hidden * bytes_of(type);
        Buffer<std::byte> beside(bytes), apart(bytes), specified(bytes);
        Buffer<float> y(tokens * hidden), beside_scale(tokens), apart_scale(tokens), specified_scale(tokens);
        table.norm(f.norm, f.x.data(), f.residual.data(), y.data(),
                   {type, beside.data(), type == TensorType::s8 ? beside_scale.data() : nullptr}, tokens);
        table.round(type, true, y.data(), tokens, hidden, apart.data(), apart_scale.data());
        scalar::round(type, true, y.data(), tokens, hidden, specified.data(), specified_scale.data());
        CHECK(std::equal(beside.begin(), beside.end(), apart.begin()));
        CHECK(std::equal(beside.begin(), beside.end(), specified.begin()));
        for (size_t t = 0; t < tokens && type == TensorType::s8; ++t) {
            const float expected = specified_scale[t];
            for (const float found : {beside_scale[t], apart_scale[t]})
                CHECK((found == expected || (std::isnan(found) && std::isnan(expected))));
        }
        CHECK((beside.intact() && apart.intact() && y.intact() && beside_scale.intact()));
    }
}

TEST_CASE("rows that are rounded beside are those of y, whatever their number and length") {
    Random random(44);
    for (const size_t hidden : {1, 16, 32, 45, 64, 96, 128, 384, 400, 768, 1024, 1536, 2304, 4096, 4128}) {
        Fixture f(hidden, 9, 0.5F, random);
        for (const bool bias : {true, false}) {
            f.norm.bias = bias ? f.bias.data() : nullptr;
            f.norm.rms = !bias;
            for (const Isa isa : available_isas()) {
                CAPTURE(named(isa));
                for (const size_t tokens : {1, 4, 5, 9})
                    compare_rounded(isa, f, hidden, tokens);
            }
            f.x[hidden * 3 + hidden / 2] = bias ? NAN : INFINITY;
        }
    }
}

TEST_CASE("constant rows give the bias; NaN and infinity stay in their row") {
    Random random(43);
    constexpr size_t hidden = 45;
    Fixture f(hidden, 4, 0, random);
    f.norm.bias = f.bias.data();
    for (size_t i = 0; i < hidden; ++i)
        f.x[i] = 0;
    f.x[hidden + 7] = NAN;
    f.x[2 * hidden + 44] = INFINITY;
    for (const Isa isa : available_isas()) {
        Buffer<float> y(4 * hidden), row(hidden);
        kernel_table(isa).norm(f.norm, f.x.data(), nullptr, y.data(), {}, 4);
        CHECK(same_bits(y.data(), f.bias.data(), hidden));
        for (size_t i = hidden; i < 3 * hidden; ++i)
            CHECK(std::isnan(y[i]));
        kernel_table(isa).norm(f.norm, f.x.data() + 3 * hidden, nullptr, row.data(), {}, 1);
        CHECK(same_bits(row.data(), y.data() + 3 * hidden, hidden));
        CHECK(std::isfinite(row[0]));
    }
}

TEST_CASE("rows are also given rounded, with the bits that rounding them later has") {
    Random random(44);
    for (const size_t hidden : {1, 15, 64, 384, 401}) {
        Fixture f(hidden, 5, 0.5F, random);
        f.x.data()[2 * hidden] = INFINITY;
        for (const Isa isa : available_isas()) {
            CAPTURE(named(isa));
            const KernelTable& kernels = kernel_table(isa);
            for (const TensorType type : {TensorType::bf16, TensorType::s8}) {
                const size_t bytes = 5 * hidden * bytes_of(type);
                Buffer<float> y(5 * hidden), expected_y(5 * hidden);
                Buffer<std::byte> found(bytes), expected(bytes);
                std::vector<float> scale(5), expected_scale(5);
                kernels.norm(f.norm, f.x.data(), f.residual.data(), y.data(),
                             {type, found.data(), scale.data()}, 5);
                kernels.norm(f.norm, f.x.data(), f.residual.data(), expected_y.data(), {}, 5);
                kernels.round(type, true, expected_y.data(), 5, hidden, expected.data(),
                              expected_scale.data());
                CHECK((y.intact() && found.intact()));
                CHECK(same_bits(y.data(), expected_y.data(), 5 * hidden));
                CHECK(std::memcmp(found.data(), expected.data(), bytes) == 0);
                if (type == TensorType::s8) CHECK(same_bits(scale.data(), expected_scale.data(), 5));
            }
        }
    }
}
