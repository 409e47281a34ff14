// Decoders on every instruction set and backend against double precision; what the cache keeps; sampling.
#include <doctest/doctest.h>

#include <set>

#include "base/error.h"
#include "kernels/dense/dense.h"
#include "runtime/generate.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {
namespace {

std::vector<int32_t> random_ids(size_t count, size_t vocabulary) {
    std::mt19937_64 random(3);
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids)
        id = static_cast<int32_t>(random() % vocabulary);
    return ids;
}

std::unique_ptr<Model> open(const AlignedBytes& bytes, const std::string& isa = "",
                            const std::string& backend = "native", const std::string& precision = "") {
    ModelOptions options;
    options.isa = isa;
    options.backend = backend;
    options.precision = precision;
    return Model::from_memory(bytes.span(), options);
}

double worst(std::span<const float> got, const std::vector<double>& expected) {
    REQUIRE(got.size() == expected.size());
    double largest = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        const double difference = std::fabs(got[i] - expected[i]);
        if (!(difference <= largest)) largest = difference;
    }
    return largest;
}

template <typename Call>
std::string refusal(Status status, const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        CHECK(error.status() == status);
        return error.what();
    }
    FAIL_CHECK("nothing was refused");
    return "";
}

void check_against_reference(const TinyDecoder& shape, const Model& model, int threads) {
    CAPTURE(name_of(model.kernels().isa));
    CAPTURE(model.backend().name());
    CAPTURE(shape.head_dimension);
    const auto ids = random_ids(150, model.spec().vocabulary);  // more than one pass
    const DecoderReference reference(model.file());
    const auto expected = reference.logits(ids);
    REQUIRE(reference.least_margin() > 1e-5);  // every walk is the same everywhere
    ContextOptions options;
    options.threads = threads;
    options.max_tokens = 160;
    Context context(model, options);
    Decoder& decoder = context.decoder();
    CHECK(worst(decoder.append(ids), expected.back()) < 1e-4);
    // Token by token; then again behind a prompt.
    decoder.clear();
    for (size_t t = 0; t < ids.size(); ++t)
        CHECK(worst(decoder.append({&ids[t], 1}), expected[t]) < 1e-4);
    decoder.clear();
    decoder.append(std::span(ids).first(131));
    CHECK(worst(decoder.append(std::span(ids).subspan(131)), expected.back()) < 1e-4);
    double loss = 0;
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
        double sum = 0;
        for (const double v : expected[t])
            sum += std::exp(v);
        loss += std::log(sum) - expected[t][static_cast<size_t>(ids[t + 1])];
    }
    CHECK(decoder.loss(ids) == doctest::Approx(loss).epsilon(1e-5));
}

}  // namespace

TEST_CASE("logits, with and without the cache, are those of double precision") {
    for (const TinyDecoder& shape :
         {TinyDecoder{}, TinyDecoder{.pairing = RopePairing::neighbours, .tied = true},
          TinyDecoder{.heads = 2, .kv_heads = 1, .head_dimension = 16, .hidden = 24},
          TinyDecoder{.heads = 3, .kv_heads = 3, .head_dimension = 84, .hidden = 20},
          TinyDecoder{.gated_trees = true}, TinyDecoder{.head_dimension = 16, .rope_scaling = {4, 0, 0, 0}},
          TinyDecoder{.head_dimension = 24, .rope_scaling = {8, 1, 4, 60}}}) {
        const AlignedBytes bytes = shape.bytes();
        for (const Isa isa : available_isas())
            check_against_reference(shape, *open(bytes, name_of(isa)), isa == Isa::scalar ? 2 : 1);
        if (onednn_compiled_in() && best_isa() != Isa::scalar && best_isa() != Isa::neon)
            check_against_reference(shape, *open(bytes, "", "onednn"), 1);
    }
}

TEST_CASE("narrow arithmetic stays near") {
    const AlignedBytes bytes = TinyDecoder{}.bytes();
    for (const char* precision : {"bf16", "int8"}) {
        CAPTURE(precision);
        const auto model = open(bytes, "", "native", precision);
        const auto ids = random_ids(40, model->spec().vocabulary);
        Context context(*model, {});
        CHECK(worst(context.decoder().append(ids), DecoderReference(model->file()).logits(ids).back()) < 0.2);
    }
}

TEST_CASE("the cache is of the blocks with attention alone") {
    const auto model = open(TinyDecoder{}.bytes());
    // Two of three blocks: keys and values, 2 heads of 6 float32, 100 tokens.
    CHECK(KeyValueCache::bytes(*model, 100) == 2 * 2 * 12 * 4 * 100);
}

TEST_CASE("continuations: greedy, drawn, ended, and what does not fit") {
    const AlignedBytes bytes = TinyDecoder{}.bytes();
    const auto model = open(bytes);
    ContextOptions small;
    small.max_tokens = 24;
    Context context(*model, small);
    using Ids = std::vector<int32_t>;
    const auto written = [&](const GenerateOptions& options, Generation& result) {
        Ids ids;
        const auto keep = [](void* user, int32_t id, std::string_view) {
            static_cast<Ids*>(user)->push_back(id);
            return static_cast<Ids*>(user)->size() < 50;
        };
        result = generate(context, "abc", options, {keep, &ids});
        CHECK(ids.size() == result.tokens);
        return ids;
    };
    Generation result;
    const Ids greedy = written({}, result);
    CHECK(result.prompt_tokens == 3);  // <s>, " " or " a", the rest
    // Recomputed from the start each time.
    Ids all(context.decoder().prompt().begin(), context.decoder().prompt().begin() + 3);
    for (const int32_t id : greedy) {
        const auto logits = DecoderReference(model->file()).logits(all).back();
        CHECK(id == std::max_element(logits.begin(), logits.end()) - logits.begin());
        all.push_back(id);
    }
    CHECK((result.stop == Stop::window_full ? all.size() == 24 : result.stop == Stop::end_token));
    CHECK(written({.max_tokens = 1, .sampler = {}}, result) == Ids{greedy[0]});
    CHECK(result.stop == Stop::max_tokens);

    const SamplerOptions warm{.temperature = 5, .seed = 1};
    CHECK(written({.max_tokens = 0, .sampler = warm}, result) ==
          written({.max_tokens = 0, .sampler = warm}, result));
    CHECK(written({.max_tokens = 0, .sampler = {.temperature = 5, .top_k = 1}}, result) == greedy);
    CHECK(written({.max_tokens = 0, .sampler = {.temperature = 5, .top_p = 1e-6F}}, result) == greedy);

    const std::string long_prompt(30, 'c');
    CHECK(refusal(Status::too_long, [&] { generate(context, long_prompt, {}, {}); }).find("32") !=
          std::string::npos);
    refusal(Status::invalid_argument,
            [&] { generate(context, "a", {.max_tokens = 0, .sampler = {.temperature = -1}}, {}); });
    refusal(Status::invalid_argument,
            [&] { generate(context, "a", {.max_tokens = 0, .sampler = {.top_p = 0}}, {}); });
    refusal(Status::unsupported, [&] {
        const uint32_t offsets[] = {0, 1};
        context.encode({std::span(all).first(1), {}, offsets});
    });
}

TEST_CASE("a sampler takes logits that are no numbers, or infinite") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                    inf = std::numeric_limits<float>::infinity();
    const SamplerOptions ways[] = {{.temperature = 0},
                                   {.temperature = 1, .seed = 5},
                                   {.temperature = 1, .top_k = 2, .seed = 5},
                                   {.temperature = 1, .top_k = 3, .top_p = 0.5F, .seed = 5}};
    // In front and behind one more candidate than there are, which nothing may read.
    Sampler::Candidate candidates[6];
    for (const SamplerOptions& options : ways) {
        std::fill(std::begin(candidates), std::end(candidates), Sampler::Candidate{1e30F, 999});
        Sampler sampler(options, std::span(candidates).subspan(1, 4));
        const auto choose = [&](std::vector<float> logits) { return sampler.choose(logits); };
        for (int draw = 0; draw < 20; ++draw) {
            CHECK(choose({nan, -200, 3, nan}) == 2);
            CHECK(choose({0, inf, 50, -inf}) == 1);
            CHECK(choose({nan, nan, nan, nan}) < 4);
            CHECK(choose({-inf, -inf, nan, -inf}) < 4);
        }
    }
}

TEST_CASE("a sampler draws by weight, among the likeliest") {
    const float logits[] = {0, std::log(2.0F), std::log(5.0F), -INFINITY};
    Sampler::Candidate candidates[4];
    size_t counts[4] = {};
    Sampler all({.temperature = 1, .seed = 5}, candidates), two({.temperature = 1, .top_k = 2}, candidates),
        most({.temperature = 1, .top_p = 0.8F}, candidates);
    for (int i = 0; i < 8000; ++i) {
        ++counts[all.choose(logits)];
        CHECK(two.choose(logits) != 0);
        CHECK(most.choose(logits) != 0);  // 5/8 and 2/8 make 7/8
    }
    CHECK(counts[0] == doctest::Approx(1000).epsilon(0.15));
    CHECK(counts[1] == doctest::Approx(2000).epsilon(0.15));
    CHECK(counts[2] == doctest::Approx(5000).epsilon(0.15));
    CHECK(counts[3] == 0);
}

}  // namespace espalier::test
