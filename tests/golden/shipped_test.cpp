// The shipped 8-bit model against PyTorch (tests/scripts/golden_expectations.py), on every instruction set;
// its answers in narrower arithmetic against those in float32.
#include <doctest/doctest.h>
#include <cmath>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/golden/golden.h"
#include "tests/slow.h"

namespace espalier {
namespace {

using nlohmann::json;

std::vector<json> expectations() {
    std::ifstream file(ESPALIER_TEST_DATA "/golden/minilm-trees.jsonl");
    REQUIRE(file);
    std::vector<json> rows;
    for (std::string line; std::getline(file, line);)
        rows.push_back(json::parse(line));
    return rows;
}

// An emulator runs the vectors only: scalar kernels are the same C++ on every machine.
std::span<const Isa> tested_isas() {
    return test::emulated ? available_isas().last(1) : available_isas();
}

std::unique_ptr<Model> open(Isa isa, const char* backend, const char* precision = "f32") {
    ModelOptions options;
    options.isa = name_of(isa);
    options.backend = backend;
    options.precision = precision;
    return Model::open(ESPALIER_SOURCE_DIR "/models/minilm-trees.esp", options);
}

// The first `count` values of every row of `length`.
std::vector<float> firsts(std::span<const float> values, size_t length, size_t count) {
    std::vector<float> out;
    for (size_t i = 0; i < values.size(); i += length)
        out.insert(out.end(), values.begin() + static_cast<ptrdiff_t>(i),
                   values.begin() + static_cast<ptrdiff_t>(i + count));
    return out;
}

std::vector<float> means(std::span<const float> values, size_t length, size_t count) {
    std::vector<double> sums(count, 0);
    for (size_t i = 0; i < values.size(); ++i) {
        if (i % length < count) sums[i % length] += values[i];
    }
    std::vector<float> out;
    for (const double sum : sums)
        out.push_back(static_cast<float>(sum / static_cast<double>(values.size() / length)));
    return out;
}

// Which walks agree; those that do not must have been a hairline.
void check_leaves(const test::Trace& trace, const json& expected) {
    REQUIRE(trace.leaves.size() == expected.size());
    for (size_t forest = 0; forest < expected.size(); ++forest) {
        REQUIRE(trace.leaves[forest].size() == expected[forest].size());
        for (size_t t = 0; t < expected[forest].size(); ++t) {
            if (trace.leaves[forest][t] == expected[forest][t].get<uint32_t>()) continue;
            INFO("forest ", forest, " token ", t);
            CHECK(trace.margins[forest][t] < hairline);
        }
    }
}

void check_hidden(const test::Trace& trace, const json& row, size_t hidden) {
    for (size_t layer = 0; layer < trace.hidden.size(); ++layer) {
        INFO("layer ", layer);
        const auto mean = row["layer_means"][layer].get<std::vector<float>>();
        CHECK(test::largest_difference(means(trace.hidden[layer], hidden, mean.size()), mean) < 1e-4F);
        if (!row.contains("hidden")) continue;
        std::vector<float> expected;
        for (const auto& token : row["hidden"][layer])
            expected.insert(expected.end(), token.begin(), token.end());
        // Written with 4 decimals.
        CHECK(test::largest_difference(firsts(trace.hidden[layer], hidden, 64), expected) < 4e-4F);
    }
}

void check_model(Isa isa, const char* backend) {
    INFO("kernels ", std::string(name_of(isa)), ", dense by ", std::string(backend));
    const auto model = open(isa, backend);
    Context context(*model, {});
    size_t hairlines = 0;
    for (const json& row : expectations()) {
        const std::string text = row["text"];
        INFO("text: ", text.substr(0, 60));
        const bool pair = row.contains("second");  // asked of head mrpc, sentences of head sst2
        const auto types = row.value("types", std::vector<uint8_t>{});
        const auto tokens = context.tokenize(
            text, pair ? std::optional<std::string>(row["second"].get<std::string>()) : std::nullopt);
        const auto expected_ids = row["ids"].get<std::vector<int32_t>>();
        REQUIRE(std::vector<int32_t>(tokens.ids.begin(), tokens.ids.end()) == expected_ids);
        if (isa == Isa::scalar && tokens.ids.size() > 64)
            continue;  // a minute of scalar loops shows nothing new
        if (test::slow && tokens.ids.size() > 24 && (test::emulated || isa != best_isa())) continue;
        const size_t head = pair ? 1 : 0;
        REQUIRE(model->spec().heads.at(head).name == (pair ? "mrpc" : "sst2"));
        const test::Trace trace = test::trace_of(context, expected_ids, types, head);
        check_leaves(trace, row["leaves"]);
        // After a walk that went elsewhere everything behind it differs.
        bool equal = true;
        for (size_t f = 0; f < trace.leaves.size(); ++f)
            equal = equal && json(trace.leaves[f]) == row["leaves"][f];
        hairlines += trace.has_hairline() ? 1 : 0;
        if (!equal) continue;
        CHECK(test::largest_difference(trace.logits, row["logits"].get<std::vector<float>>()) < 1e-4F);
        check_hidden(trace, row, model->spec().hidden);
    }
    MESSAGE(std::string(name_of(isa)), " ", std::string(backend), ": ", hairlines,
            " sentences with a hairline");
}

// How far narrower arithmetic goes from float32, on each instruction set. One walk that ends elsewhere moves
// a short text far: the mean over texts counts, and a label must stay only where float32 was sure of it.
void check_precision(const char* precision, double least_cosine, double least_equal) {
    const auto reference = open(best_isa(), "native", "f32");
    Context reference_context(*reference, {});
    std::vector<std::unique_ptr<Model>> models;
    std::vector<std::string> names;
    const auto add = [&](Isa isa, const char* backend) {
        models.push_back(open(isa, backend, precision));
        names.push_back(std::string(name_of(isa)) + " " + backend);
        CHECK(models.back()->precision() == precision_type(precision));
    };
    for (const Isa isa : tested_isas())
        add(isa, "native");
    if (onednn_compiled_in() && best_isa() != Isa::scalar) add(best_isa(), "onednn");
    for (size_t m = 0; m < models.size(); ++m) {
        INFO(std::string(precision), " ", names[m]);
        Context context(*models[m], {});
        size_t leaves = 0, equal = 0, labels = 0, changed = 0, texts = 0;
        double cosines = 0;
        for (const json& row : expectations()) {
            const auto ids = row["ids"].get<std::vector<int32_t>>();
            // A minute of loops shows nothing new.
            if (ids.size() > (m == 0 || test::slow ? 16u : 40u)) continue;
            const test::Trace expected = test::trace_of(reference_context, ids);
            const test::Trace found = test::trace_of(context, ids);
            for (size_t f = 0; f < expected.leaves.size(); ++f) {
                for (size_t t = 0; t < expected.leaves[f].size(); ++t, ++leaves)
                    equal += expected.leaves[f][t] == found.leaves[f][t] ? 1 : 0;
            }
            ++texts;
            // A probability of less than 0.73 is a toss-up.
            const float lead = expected.logits[1] - expected.logits[0];
            const bool same = (lead > 0) == (found.logits[1] > found.logits[0]);
            labels += same || std::fabs(lead) < 1 ? 1 : 0;
            changed += same ? 0 : 1;
            cosines += test::cosine(expected.hidden.back(), found.hidden.back());
        }
        const double mean = cosines / static_cast<double>(texts);
        MESSAGE(std::string(precision), " ", names[m], ": equal leaves ",
                100.0 * static_cast<double>(equal) / static_cast<double>(leaves),
                " %, cosine of hidden states ", mean, ", labels kept or tossed up ", labels, " of ", texts);
        CHECK(mean >= least_cosine);
        CHECK(static_cast<double>(equal) >= least_equal * static_cast<double>(leaves));
        CHECK(labels == texts);
        CHECK(changed <= 2);
    }
}

}  // namespace

TEST_CASE("bf16 and 8-bit arithmetic stay near float32, on every instruction set") {
    check_precision("bf16", 0.997, 0.985);
    check_precision("int8", 0.985, 0.955);
}

namespace {

void check_slices(const char* precision, int threads) {
    CAPTURE(std::string(precision));
    CAPTURE(threads);
    const auto model = open(best_isa(), "native", precision);
    ContextOptions options;
    options.threads = threads;
    options.max_tokens = 1000;
    options.max_sequences = 20;
    Context context(*model, options), alone(*model, {});
    const uint32_t sequences = test::slow ? 6 : 20;
    std::vector<int32_t> ids;
    std::vector<uint32_t> offsets{0};
    for (uint32_t s = 0; s < sequences; ++s) {
        for (uint32_t t = 0; t < 1 + s * 7 % 60; ++t)
            ids.push_back(static_cast<int32_t>(1000 + (s * 131 + t * 17) % 20000));
        offsets.push_back(static_cast<uint32_t>(ids.size()));
    }
    const size_t hidden = model->spec().hidden;
    const auto all = context.encode({ids, {}, offsets});
    const std::vector<float> together(all.begin(), all.end());
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
        const size_t first = offsets[s], count = offsets[s + 1] - first;
        const uint32_t ends[2] = {0, static_cast<uint32_t>(count)};
        const auto one = alone.encode({std::span(ids).subspan(first, count), {}, ends});
        REQUIRE(std::memcmp(one.data(), together.data() + first * hidden, count * hidden * sizeof(float)) ==
                0);
        for (size_t f = 0; f < model->prepared().forests; ++f)
            REQUIRE(std::memcmp(alone.routes(f).leaf, context.routes(f).leaf + first,
                                count * sizeof(uint32_t)) == 0);
    }
    CHECK(context.tokens() == ids.size());
}

}  // namespace

TEST_CASE("in a batch of many slices a sequence has the bits and leaves that it has alone") {
    for (const char* precision : {"f32", "bf16", "int8"}) {
        // Threads that wait for each other by spinning take an emulator longest.
        for (int threads = 1; threads <= (test::slow ? 2 : 3); ++threads)
            check_slices(precision, threads);
    }
}

TEST_CASE("threads with slices of their own take little more memory than threads that share them") {
    const auto model = open(best_isa(), "native", "int8");
    const auto bytes = [&](int threads, uint32_t tokens, uint32_t sequences) {
        ContextOptions options;
        options.threads = threads;
        options.max_tokens = tokens;
        options.max_sequences = sequences;
        const size_t needed = Context::arena_bytes(*model, options);
        MESSAGE(threads, " threads, ", tokens, " tokens, ", sequences, " sequences: ", needed, " bytes");
        return needed;
    };
    CHECK(bytes(4, 128, 1) < 2 * bytes(1, 128, 1));
    CHECK(bytes(4, 2048, 32) < 2 * bytes(1, 2048, 32));
}

TEST_CASE("threads with slices of their own stop when the caller says so, and go on in the next call") {
    const auto model = open(best_isa(), "native", "int8");
    int cancel = 1;
    ContextOptions options;
    options.threads = 2;
    options.cancel = &cancel;
    Context context(*model, options);
    const std::vector<int32_t> ids(40, 2000);
    const uint32_t offsets[] = {0, 10, 20, 30, 40};
    CHECK_THROWS_AS(context.encode({ids, {}, offsets}), Error);
    CHECK(context.tokens() == 0);
    cancel = 0;
    CHECK(context.encode({ids, {}, offsets}).size() == 40 * model->spec().hidden);
}

TEST_CASE("arithmetic is as weights are stored, unless asked for") {
    ModelOptions options;
    const auto path = ESPALIER_SOURCE_DIR "/models/minilm-trees.esp";
    CHECK(Model::open(path, options)->precision() == TensorType::s8);
    options.precision = "int4";
    CHECK_THROWS_AS(Model::open(path, options), Error);
}

TEST_CASE("the shipped model answers as PyTorch does, on every instruction set") {
    for (const Isa isa : tested_isas())
        check_model(isa, "native");
}

TEST_CASE("and through oneDNN") {
    if (onednn_compiled_in() && best_isa() != Isa::scalar) check_model(best_isa(), "onednn");
}

TEST_CASE("the shipped file is whole") {
    const ModelFile file = ModelFile::open(ESPALIER_SOURCE_DIR "/models/minilm-trees.esp");
    CHECK_NOTHROW(file.verify_payload());
    CHECK(file.bytes().size() <= 40'000'000);
    CHECK(file.spec().licence.find("Apache-2.0") != std::string_view::npos);
}

}  // namespace espalier
