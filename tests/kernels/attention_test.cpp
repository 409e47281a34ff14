// Attention of every instruction set against double precision.
#include "kernels/attention/attention.h"

#include "base/float16.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/reference.h"

namespace {

using namespace espalier;
using namespace espalier::test;

struct Fixture {
    Fixture(size_t heads, size_t kv_heads, size_t dimension, size_t count, float size, Random& random)
        : shape{heads, kv_heads, dimension, 1.0F / std::sqrt(static_cast<float>(dimension))},
          tokens(count),
          qkv(count * shape.row_stride(), 64),
          scratch(attention_scratch(shape, count), 0, true) {
        fill_normal(qkv, random, size);
    }
    void run(Isa isa, size_t head, Buffer<float>& out) {
        kernel_table(isa).attention(shape, qkv.data(), tokens, head, out.data(), scratch.data());
        CHECK((out.intact() && scratch.intact() && qkv.intact()));
    }
    // qkv rounded, and the call.
    void run_narrow(Isa isa, size_t head, Buffer<float>& out) {
        Buffer<uint16_t> narrow(qkv.size(), 128);
        for (size_t i = 0; i < qkv.size(); ++i)
            narrow[i] = bfloat_from_float(qkv[i]);
        kernel_table(isa).narrow_attention(shape, narrow.data(), tokens, head, out.data(), scratch.data());
        CHECK((out.intact() && scratch.intact() && narrow.intact()));
    }
    AttentionShape shape;
    size_t tokens;
    Buffer<float> qkv, scratch;
};

struct Expected {
    std::vector<double> values, budget;
};

// One query. An error of d in the scores changes each weight by a factor of at most exp(2d). narrow: queries,
// keys, values and weights are rounded to bfloat16, each by 2^-9 of it at most.
Expected expected_row(const Fixture& f, size_t query, size_t head, bool narrow) {
    const AttentionShape& s = f.shape;
    const size_t d = s.head_dimension, kv = head / (s.heads / s.kv_heads);
    const float* q = f.qkv.data() + query * s.row_stride() + head * d;
    std::vector<double> weight(f.tokens);
    double largest = -INFINITY, error = 0, sum = 0;
    for (size_t j = 0; j < f.tokens; ++j) {
        const Dot score = dot(q, f.qkv.data() + j * s.row_stride() + (s.heads + kv) * d, 1, d, 0);
        weight[j] = score.value * s.scale;
        double rounding = 0;
        for (size_t i = 0; i < d && narrow; ++i)
            rounding +=
                std::fabs(static_cast<double>(q[i]) * f.qkv[j * s.row_stride() + (s.heads + kv) * d + i]) *
                0x1p-8;
        error = std::max(error, (score.budget + 4 * unit * std::fabs(score.value) + rounding) * s.scale);
        largest = std::max(largest, weight[j]);
    }
    for (double& w : weight)
        sum += w = std::exp(w - largest);
    Expected out{std::vector<double>(d), std::vector<double>(d)};
    for (size_t c = 0; c < d; ++c) {
        double absolute = 0;
        for (size_t j = 0; j < f.tokens; ++j) {
            const double v = f.qkv[j * s.row_stride() + (s.heads + s.kv_heads + kv) * d + c];
            out.values[c] += weight[j] / sum * v;
            absolute += weight[j] / sum * std::fabs(v);
        }
        const double change = narrow ? std::expm1(2 * error) + 0x1p-7 : 4 * error;
        out.budget[c] = absolute * (change + 16 * unit) + 2 * sum_budget(f.tokens, absolute) + 1e-37;
    }
    return out;
}

void compare(size_t heads, size_t kv_heads, size_t dimension, size_t tokens, float size, uint64_t seed,
             Budget& budget, bool narrow = false) {
    Random random(seed);
    Fixture f(heads, kv_heads, dimension, tokens, size, random);
    const size_t width = f.shape.query_width();
    const size_t head = random.between(0, heads - 1);
    std::vector<Expected> expected;
    for (size_t t = 0; t < tokens; ++t)
        expected.push_back(expected_row(f, t, head, narrow));
    for (const Isa isa : available_isas()) {
        Buffer<float> out(tokens * width);
        std::fill(out.begin(), out.end(), 12345.0F);
        if (narrow) {
            if (kernel_table(isa).narrow_attention == nullptr) continue;
            f.run_narrow(isa, head, out);
        } else {
            f.run(isa, head, out);
        }
        for (size_t t = 0; t < tokens; ++t) {
            for (size_t c = 0; c < width; ++c) {
                const bool own = c / dimension == head;
                if (!own) {
                    REQUIRE(out[t * width + c] == 12345.0F);
                    continue;
                }
                const size_t i = c - head * dimension;
                budget.add(out[t * width + c], expected[t].values[i], expected[t].budget[i]);
            }
        }
        CAPTURE(dimension);
        CAPTURE(tokens);
        CAPTURE(heads);
        CAPTURE(size);
        CAPTURE(named(isa));
        REQUIRE(budget.worst() <= 1);
    }
}

}  // namespace

TEST_CASE("attention stays within its budget") {
    Budget budget;
    Random random(51);
    for (size_t dimension = 1; dimension <= 70; ++dimension) {
        for (const size_t tokens : {size_t{0}, size_t{1}, random.between(2, 70)}) {
            const size_t kv_heads = random.between(1, 3);
            compare(kv_heads * random.between(1, 3), kv_heads, dimension, tokens, 1, random.next(), budget);
        }
    }
    for (const size_t tokens : {2, 11, 12, 13, 15, 16, 17, 63, 64, 65, 127, 128, 130, 257, 512}) {
        compare(12, 12, 32, tokens, 1, tokens, budget);
        if (tokens < 200) compare(12, 12, 64, tokens, 1, tokens, budget);
    }
    compare(8, 2, 128, 40, 1, 9, budget);
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("attention of narrow models stays within the budget of bfloat16") {
    Budget budget;
    Random random(55);
    for (const size_t dimension : {16, 32, 48, 64, 80, 128}) {
        for (const size_t tokens : {1, 2, 3, 9, 12, 13, 16, 17, 45, 64, 65, 130})
            compare(4, 2, dimension, tokens, 1, random.next(), budget, true);
    }
    compare(12, 12, 32, 512, 1, 56, budget, true);
    compare(2, 2, 32, 33, 0, 57, budget, true);
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("scores that saturate the softmax, and scores that are all equal") {
    Budget budget;
    for (const float size : {20.0F, 1000.0F, 0.0F, 1e-20F})
        compare(4, 4, 32, 33, size, 52, budget);
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("a sequence has the same bits wherever it stands") {
    Random random(53);
    Fixture f(4, 2, 24, 90, 1, random);
    const size_t start = 31, tokens = 37, width = f.shape.query_width(), stride = f.shape.row_stride();
    for (const Isa isa : available_isas()) {
        for (size_t head = 0; head < 4; ++head) {
            Fixture alone(4, 2, 24, tokens, 1, random);
            std::memcpy(alone.qkv.data(), f.qkv.data() + start * stride, tokens * stride * sizeof(float));
            Buffer<float> expected(tokens * width), found(tokens * width);
            alone.run(isa, head, expected);
            kernel_table(isa).attention(f.shape, f.qkv.data() + start * stride, tokens, head, found.data(),
                                        f.scratch.data());
            for (size_t t = 0; t < tokens; ++t)
                REQUIRE(same_bits(expected.data() + t * width + head * 24,
                                  found.data() + t * width + head * 24, 24));
        }
    }
}

TEST_CASE("a NaN query is NaN alone; a NaN value or key is felt by every query") {
    Random random(54);
    Fixture f(2, 2, 20, 30, 1, random);
    const size_t stride = f.shape.row_stride(), width = f.shape.query_width();
    f.qkv[5 * stride + 3] = NAN;            // query 5 of head 0
    f.qkv[7 * stride + 40 + 20 + 3] = NAN;  // key 7 of head 1
    for (const Isa isa : available_isas()) {
        CAPTURE(named(isa));
        Buffer<float> out(30 * width);
        f.run(isa, 0, out);
        f.run(isa, 1, out);
        for (size_t t = 0; t < 30; ++t) {
            CAPTURE(t);
            CHECK(std::isnan(out[t * width]) == (t == 5));
            CHECK(std::isnan(out[t * width + 20]));
        }
    }
}

TEST_CASE("narrow: NaN as above; a sequence has the same bits whatever stands behind it") {
    Random random(58);
    Fixture f(2, 2, 32, 45, 1, random);
    const size_t stride = f.shape.row_stride(), width = f.shape.query_width();
    for (const Isa isa : available_isas()) {
        if (kernel_table(isa).narrow_attention == nullptr) continue;
        Buffer<float> expected(45 * width), found(45 * width);
        f.tokens = 30;
        f.run_narrow(isa, 0, expected);
        std::fill(f.qkv.begin() + static_cast<std::ptrdiff_t>(30 * stride), f.qkv.end(), NAN);
        f.run_narrow(isa, 0, found);
        for (size_t t = 0; t < 30; ++t)
            REQUIRE(same_bits(expected.data() + t * width, found.data() + t * width, 32));
        f.qkv[5 * stride + 3] = NAN;            // query 5 of head 0
        f.qkv[7 * stride + 64 + 32 + 3] = NAN;  // key 7 of head 1
        f.run_narrow(isa, 0, found);
        f.run_narrow(isa, 1, found);
        for (size_t t = 0; t < 30; ++t) {
            CHECK(std::isnan(found[t * width]) == (t == 5));
            CHECK(std::isnan(found[t * width + 32]));
        }
    }
}
