// Attention of every instruction set, on float32, bfloat16 and 8 bits, against double precision.
#include "kernels/attention/attention.h"

#include "base/float16.h"
#include "kernels/cpu/kernel_table.h"
#if defined(ESPALIER_X86)
#include "kernels/cpu/avx512.h"
#endif
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
    void run_narrow(NarrowAttentionKernel kernel, size_t head, Buffer<float>& out) {
        Buffer<uint16_t> narrow(qkv.size(), 128);
        for (size_t i = 0; i < qkv.size(); ++i)
            narrow[i] = bfloat_from_float(qkv[i]);
        kernel(shape, narrow.data(), tokens, head, out.data(), scratch.data());
        CHECK((out.intact() && scratch.intact() && narrow.intact()));
    }
    AttentionShape shape;
    size_t tokens;
    Buffer<float> qkv, scratch;
};

struct Narrow {
    std::string name;
    NarrowAttentionKernel kernel;
};

// Every kernel there is of a narrow type.
std::vector<Narrow> narrow_kernels(TensorType type) {
    std::vector<Narrow> all;
    for (const Isa isa : available_isas()) {
        if (kernel_table(isa).narrow_attention(type) != nullptr)
            all.push_back({name_of(isa), kernel_table(isa).narrow_attention(type)});
    }
#if defined(ESPALIER_X86)
    if (type == TensorType::s8 && isa_available(Isa::avx512))
        all.push_back({"avx512 without vnni", avx512::attention_s8});
#endif
    return all;
}

struct Expected {
    std::vector<double> values, budget;
};

// A row's or column's largest size.
template <class At>
double largest_of(size_t count, const At& at) {
    double largest = 0;
    for (size_t i = 0; i < count; ++i)
        largest = std::max(largest, std::fabs(static_cast<double>(at(i))));
    return largest;
}

// One query. An error of d in the scores changes each weight by a factor of at most exp(2d). Narrow: queries,
// keys and values are rounded to bfloat16, by 2^-9 of them at most. In bf16 weights are as well; in 8 bits
// queries, keys and values are rounded further, by half a step (a 127th of the largest of a token's, or of a
// dimension's values), and a weight by less than a step of 1 / 254.5 of the largest and a 500th of itself.
Expected expected_row(const Fixture& f, size_t query, size_t head, TensorType type) {
    const AttentionShape& s = f.shape;
    const size_t d = s.head_dimension, kv = head / (s.heads / s.kv_heads);
    const bool narrow = type != TensorType::f32, bytes = type == TensorType::s8;
    const float* q = f.qkv.data() + query * s.row_stride() + head * d;
    const double q_step = largest_of(d, [&](size_t i) { return q[i]; }) / 127;
    std::vector<double> weight(f.tokens);
    double largest = -INFINITY, error = 0, sum = 0;
    for (size_t j = 0; j < f.tokens; ++j) {
        const float* k = f.qkv.data() + j * s.row_stride() + (s.heads + kv) * d;
        const Dot score = dot(q, k, 1, d, 0);
        weight[j] = score.value * s.scale;
        const double k_step = largest_of(d, [&](size_t i) { return k[i]; }) / 127;
        double rounding = 0;
        for (size_t i = 0; i < d && narrow; ++i) {
            const double size_q = std::fabs(static_cast<double>(q[i])),
                         size_k = std::fabs(static_cast<double>(k[i]));
            rounding += size_q * size_k * 0x1p-8;
            if (bytes) rounding += (size_q * k_step + size_k * q_step + q_step * k_step) * (0.5 + 0x1p-8);
        }
        error = std::max(error, (score.budget + 4 * unit * std::fabs(score.value) + rounding) * s.scale);
        largest = std::max(largest, weight[j]);
    }
    for (double& w : weight)
        sum += w = std::exp(w - largest);
    Expected out{std::vector<double>(d), std::vector<double>(d)};
    for (size_t c = 0; c < d; ++c) {
        const auto value = [&](size_t j) {
            return f.qkv[j * s.row_stride() + (s.heads + s.kv_heads + kv) * d + c];
        };
        const double most = largest_of(f.tokens, value);
        double absolute = 0;
        for (size_t j = 0; j < f.tokens; ++j) {
            out.values[c] += weight[j] / sum * value(j);
            absolute += weight[j] / sum * std::fabs(static_cast<double>(value(j)));
        }
        const double change = narrow ? std::expm1(2 * error) + 0x1p-7 : 4 * error;
        out.budget[c] = absolute * (change + 16 * unit) + 2 * sum_budget(f.tokens, absolute) + 1e-37;
        // Of all weights a step each: of the sum, and of what they weigh.
        if (bytes)
            out.budget[c] += most / 254 + (absolute + most) * static_cast<double>(f.tokens) / 254.5 / sum *
                                              std::exp(2 * error);
    }
    return out;
}

void compare(size_t heads, size_t kv_heads, size_t dimension, size_t tokens, float size, uint64_t seed,
             Budget& budget, TensorType type = TensorType::f32) {
    Random random(seed);
    Fixture f(heads, kv_heads, dimension, tokens, size, random);
    const size_t width = f.shape.query_width();
    const size_t head = random.between(0, heads - 1);
    std::vector<Expected> expected;
    for (size_t t = 0; t < tokens; ++t)
        expected.push_back(expected_row(f, t, head, type));
    const auto check = [&](const std::string& name, const auto& run) {
        Buffer<float> out(tokens * width);
        std::fill(out.begin(), out.end(), 12345.0F);
        run(out);
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
        CAPTURE(name);
        REQUIRE(budget.worst() <= 1);
    };
    if (type == TensorType::f32) {
        for (const Isa isa : available_isas())
            check(name_of(isa), [&](Buffer<float>& out) { f.run(isa, head, out); });
    } else {
        for (const Narrow& kernel : narrow_kernels(type))
            check(kernel.name, [&](Buffer<float>& out) { f.run_narrow(kernel.kernel, head, out); });
    }
}

constexpr TensorType narrow_types[] = {TensorType::bf16, TensorType::s8};

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

TEST_CASE("attention of narrow models stays within the budget of their types") {
    for (const TensorType type : narrow_types) {
        Budget budget;
        Random random(55);
        for (const size_t dimension : {16, 32, 48, 64, 80, 128}) {
            for (const size_t tokens : {1, 2, 3, 9, 12, 13, 16, 17, 45, 64, 65, 130})
                compare(4, 2, dimension, tokens, 1, random.next(), budget, type);
        }
        compare(12, 12, 32, 512, 1, 56, budget, type);
        for (const float size : {0.0F, 1e-20F, 20.0F})
            compare(2, 2, 32, 33, size, 57, budget, type);
        MESSAGE(std::string(name_of(type)), ", largest share of its budget: ", budget.worst());
    }
}

TEST_CASE("attention in 8 bits has the same bits with and without quads") {
    const auto kernels = narrow_kernels(TensorType::s8);
    Random random(59);
    for (const size_t tokens : {1, 15, 16, 40, 129}) {
        Fixture f(6, 3, 48, tokens, 2, random);
        for (const Narrow& kernel : kernels) {
            const size_t width = f.shape.query_width();
            Buffer<float> expected(tokens * width), found(tokens * width);
            for (size_t head = 0; head < 6; ++head) {
                f.run_narrow(kernels[0].kernel, head, expected);
                f.run_narrow(kernel.kernel, head, found);
            }
            REQUIRE(same_bits(expected.data(), found.data(), tokens * width));
        }
    }
}

// One key with nearly all the weight of any single one, and many whose weights are less than half a step:
// together they carry half of the answer.
TEST_CASE("small weights do not vanish together in 8 bits") {
    Random random(60);
    const size_t tokens = 512, d = 32;
    for (const double small : {0.1, 0.3, 0.49, 1.4}) {
        Fixture f(1, 1, d, tokens, 0, random);
        const double weight = small / 254.5;
        for (size_t t = 0; t < tokens; ++t) {
            float* row = f.qkv.data() + t * f.shape.row_stride();
            row[0] = 1;
            row[d] = t == 100 ? static_cast<float>(-std::log(weight) * std::sqrt(32.0)) : 0.0F;
            for (size_t c = 0; c < d; ++c)
                row[2 * d + c] = t == 100 ? 0.0F : 1.0F;
        }
        const double rest = weight * (tokens - 1), expected = rest / (1 + rest);
        for (const Narrow& kernel : narrow_kernels(TensorType::s8)) {
            Buffer<float> out(tokens * d);
            f.run_narrow(kernel.kernel, 0, out);
            for (size_t t = 0; t < tokens; ++t)
                CHECK(std::fabs(out[t * d] - expected) < 0.1 * expected);
        }
    }
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

// As many tokens as leave padding behind a row, and none.
TEST_CASE("a query without a finite score is NaN alone") {
    for (const size_t tokens : {size_t{5}, size_t{16}, size_t{30}}) {
        Random random(55);
        Fixture f(1, 1, 20, tokens, 1, random);
        const size_t stride = f.shape.row_stride(), width = f.shape.query_width();
        f.qkv[3 * stride + 2] = INFINITY;
        for (size_t t = 0; t < tokens; ++t)
            f.qkv[t * stride + 20 + 2] = -1;
        for (const Isa isa : available_isas()) {
            CAPTURE(named(isa));
            CAPTURE(tokens);
            Buffer<float> out(tokens * width);
            f.run(isa, 0, out);
            for (size_t t = 0; t < tokens; ++t)
                CHECK(std::isnan(out[t * width]) == (t == 3));
        }
    }
}

TEST_CASE("narrow: NaN as above; a sequence has the same bits whatever stands behind it") {
    for (const TensorType type : narrow_types) {
        for (const Narrow& kernel : narrow_kernels(type)) {
            CAPTURE(kernel.name);
            Random random(58);
            Fixture f(2, 2, 32, 45, 1, random);
            const size_t stride = f.shape.row_stride(), width = f.shape.query_width();
            Buffer<float> expected(45 * width), found(45 * width);
            f.tokens = 30;
            f.run_narrow(kernel.kernel, 0, expected);
            std::fill(f.qkv.begin() + static_cast<std::ptrdiff_t>(30 * stride), f.qkv.end(), NAN);
            f.run_narrow(kernel.kernel, 0, found);
            for (size_t t = 0; t < 30; ++t)
                REQUIRE(same_bits(expected.data() + t * width, found.data() + t * width, 32));
            f.qkv[5 * stride + 3] = NAN;             // query 5 of head 0
            f.qkv[7 * stride + 64 + 32 + 3] = NAN;   // key 7 of head 1
            f.qkv[9 * stride + 128 + 4] = INFINITY;  // a value of head 0
            f.run_narrow(kernel.kernel, 0, found);
            f.run_narrow(kernel.kernel, 1, found);
            for (size_t t = 0; t < 30; ++t) {
                CHECK(std::isnan(found[t * width]) == (t == 5));
                CHECK(std::isnan(found[t * width + 32]));
                CHECK(!std::isfinite(found[t * width + 4]));
            }
        }
    }
}
