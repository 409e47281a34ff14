// What a warm context allocates: nothing with the native backend, a bounded number of times with oneDNN.
// Counts at malloc, which operator new, oneDNN and OpenMP end in as well.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "espalier/espalier.h"
#include "kernels/dense/dense.h"
#include "runtime/model.h"
#include "tests/api/models.h"
#include "tests/malloc_watch.h"
#include "tests/skip.h"

using espalier::test::malloc_watch;
using espalier::test::MallocWatch;
using espalier::test::watches_malloc;

namespace {

const std::vector<std::string>& texts() {
    static const std::vector<std::string> all{"the tree",
                                              "",
                                              "a",
                                              "the leaf, the tree. a b c d e",
                                              "\xc3\x89t\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 [SEP] unknownword",
                                              "a b c d a b c d a b c d a b c d a b c d",
                                              std::string(5000, 'a'),
                                              "\xff\xfe bad \xc0"};
    return all;
}

struct Session {
    explicit Session(const char* backend) {
        espalier_model_options options;
        espalier_model_options_init(&options);
        options.backend = backend;
        size_t bytes = 0;
        const void* data = medium_model_bytes(&bytes);
        REQUIRE(espalier_model_from_memory(data, bytes, &options, &model, nullptr) == ESPALIER_OK);
        REQUIRE(espalier_context_create(model, nullptr, &context, nullptr) == ESPALIER_OK);
    }
    ~Session() {
        espalier_context_destroy(context);
        espalier_model_close(model);
    }
    // Every call a program makes in its loop, on every text; the sum keeps the results alive.
    int run(float* out) {
        int good = 0;
        for (const std::string& text : texts()) {
            const espalier_text one{text.data(), text.size(), nullptr, 0};
            const espalier_text pair{text.data(), text.size(), "the pair a", 10};
            int32_t ids[16];
            uint8_t types[16];
            size_t count = 0;
            espalier_classification result;
            espalier_error error;
            good +=
                espalier_tokenize(context, &pair, 0, ids, types, 16, &count, nullptr, &error) == ESPALIER_OK;
            const uint32_t offsets[] = {0, static_cast<uint32_t>(count)};
            const espalier_batch batch{ids, types, offsets, 1};
            good += espalier_embed_text(context, &one, out, nullptr, &error) == ESPALIER_OK;
            good += espalier_embed(context, &batch, out, &error) == ESPALIER_OK;
            good += espalier_score(context, &batch, 0, out, &error) == ESPALIER_OK;
            good += espalier_classify_text(context, &one, 0, &result, out, &error) == ESPALIER_OK;
        }
        return good;
    }
    espalier_model* model = nullptr;
    espalier_context* context = nullptr;
};

}  // namespace

TEST_CASE("native: a warm context allocates nothing") {
    if (!watches_malloc) return espalier::test::skip("malloc is not ours to count here");
    Session session("native");
    std::vector<float> out(16 * 96);
    const auto expected = static_cast<int>(5 * texts().size());
    REQUIRE(session.run(out.data()) == expected);
    malloc_watch = {.on = true};
    const int good = session.run(out.data());
    const MallocWatch counted = malloc_watch;
    malloc_watch = {};
    CHECK(good == expected);
    CHECK(counted.taken == 0);
    CHECK(counted.freed == 0);
}

TEST_CASE("native: a warm decoder allocates nothing") {
    if (!watches_malloc) return espalier::test::skip("malloc is not ours to count here");
    espalier_model_options options;
    espalier_model_options_init(&options);
    options.backend = "native";
    size_t bytes = 0;
    const void* data = decoder_model_bytes(&bytes);
    espalier_model* model = nullptr;
    espalier_context* context = nullptr;
    REQUIRE(espalier_model_from_memory(data, bytes, &options, &model, nullptr) == ESPALIER_OK);
    REQUIRE(espalier_context_create(model, nullptr, &context, nullptr) == ESPALIER_OK);
    const std::vector<std::string> prompts{texts()[0], texts()[4], std::string(200, 'b')};
    const auto run = [&] {
        int good = 0;
        for (const std::string& text : prompts) {
            const espalier_text prompt{text.data(), text.size(), nullptr, 0};
            espalier_generate_options drawn;
            espalier_generate_options_init(&drawn);
            drawn.max_tokens = 40;
            drawn.temperature = 2;
            drawn.top_p = 0.9F;
            espalier_error error;
            good +=
                espalier_generate(context, &prompt, &drawn, nullptr, nullptr, nullptr, &error) == ESPALIER_OK;
            drawn.temperature = 0;
            good +=
                espalier_generate(context, &prompt, &drawn, nullptr, nullptr, nullptr, &error) == ESPALIER_OK;
        }
        return good;
    };
    REQUIRE(run() == 6);
    malloc_watch = {.on = true};
    const int good = run();
    const MallocWatch counted = malloc_watch;
    malloc_watch = {};
    CHECK(good == 6);
    CHECK(counted.taken == 0);
    CHECK(counted.freed == 0);
    espalier_context_destroy(context);
    espalier_model_close(model);
}

TEST_CASE("oneDNN: a warm context allocates a bounded number of times a dense layer") {
    if (!watches_malloc || !espalier::onednn_compiled_in()) return;
    const auto isa = espalier::chosen_isa("");
    if (isa == espalier::Isa::scalar || isa == espalier::Isa::neon) return;
    Session session("onednn");
    std::vector<float> out(16 * 96);
    session.run(out.data());
    malloc_watch = {.on = true};
    session.run(out.data());
    const MallocWatch counted = malloc_watch;
    malloc_watch = {};
    // Per text: four encodings of 2 x 2 projections and 2 x 2 dense layers, and two heads of two layers.
    const size_t layers = texts().size() * (4 * 8 + 2 * 2);
    MESSAGE(counted.taken, " allocations in ", layers,
            " dense layers: ", static_cast<double>(counted.taken) / static_cast<double>(layers), " each");
    CHECK(counted.taken == counted.freed);
    CHECK(counted.taken <= 16 * layers);
}

TEST_CASE("native: every allocation may fail, operator new's too: a status, nothing leaked, no crash") {
    if (!watches_malloc) return;
    size_t bytes = 0;
    const void* data = tiny_model_bytes(&bytes);
    espalier_model_options options;
    espalier_model_options_init(&options);
    options.backend = "native";
    const auto life = [&](espalier_error& error) {
        espalier_model* model = nullptr;
        espalier_context* context = nullptr;
        espalier_classification result;
        const espalier_text text{"the tree", 8, "leaf", 4};
        auto status = espalier_model_from_memory(data, bytes, &options, &model, &error);
        if (status == ESPALIER_OK) status = espalier_context_create(model, nullptr, &context, &error);
        if (status == ESPALIER_OK)
            status = espalier_classify_text(context, &text, 0, &result, nullptr, &error);
        espalier_context_destroy(context);
        espalier_model_close(model);
        return status;
    };
    espalier_error error;
    REQUIRE(life(error) == ESPALIER_OK);
    size_t n = 1, refused = 0;
    for (; n < 5000; ++n) {
        malloc_watch = {.fail_at = n, .on = true};
        const auto status = life(error);
        const MallocWatch counted = malloc_watch;
        malloc_watch = {};
        // libstdc++ takes a failed exception object from a reserve of its own: nothing else may differ.
        CHECK(counted.taken - (n <= counted.taken ? 1 : 0) == counted.freed);
        if (n > counted.taken) break;
        ++refused;
        REQUIRE((status == ESPALIER_OUT_OF_MEMORY || status == ESPALIER_OK));
        if (status != ESPALIER_OK) CHECK(std::string(error.message).find("memory") != std::string::npos);
    }
    MESSAGE(refused, " allocations refused in turn");
    CHECK(refused > 10);
    CHECK(n < 5000);
}
