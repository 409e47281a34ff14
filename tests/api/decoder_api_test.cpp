// The C API's decoder calls: streaming, stopping, statuses, struct sizes; any number of contexts on one
// model.
#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include "espalier/espalier.h"
#include "tests/api/models.h"

namespace {

struct Session {
    explicit Session(uint32_t window, const void* (*give)(size_t*) = decoder_model_bytes) {
        size_t bytes = 0;
        const void* data = give(&bytes);
        REQUIRE(espalier_model_from_memory(data, bytes, nullptr, &model, nullptr) == ESPALIER_OK);
        espalier_context_options options;
        espalier_context_options_init(&options);
        options.max_tokens = window;
        REQUIRE(espalier_context_create(model, &options, &context, nullptr) == ESPALIER_OK);
    }
    ~Session() {
        espalier_context_destroy(context);
        espalier_model_close(model);
    }
    espalier_status generate(const std::string& prompt, const espalier_generate_options* options,
                             espalier_token_callback callback, void* user) {
        const espalier_text text{prompt.data(), prompt.size(), nullptr, 0};
        result.struct_size = sizeof(result);
        return espalier_generate(context, &text, options, callback, user, &result, &error);
    }
    espalier_model* model = nullptr;
    espalier_context* context = nullptr;
    espalier_generation result{};
    espalier_error error{};
};

struct Written {
    std::vector<int32_t> ids;
    std::string text;
    size_t most = SIZE_MAX;
};

int keep(void* user, int32_t id, const char* text, size_t bytes) {
    auto* written = static_cast<Written*>(user);
    written->ids.push_back(id);
    written->text.append(text, bytes);
    return written->ids.size() == written->most ? 1 : 0;
}

// Drawn so warm that the end token comes late, if at all.
espalier_generate_options warm(uint64_t seed) {
    espalier_generate_options options;
    espalier_generate_options_init(&options);
    options.temperature = 100;
    options.seed = seed;
    return options;
}

}  // namespace

TEST_CASE("tokens are streamed until something stops them") {
    Session s(20);
    Written all;
    const auto options = warm(3);
    REQUIRE(s.generate("ab", &options, keep, &all) == ESPALIER_OK);
    CHECK(s.result.tokens == all.ids.size());
    CHECK(s.result.prompt_tokens + s.result.tokens <= 20);
    CHECK((s.result.stop == ESPALIER_STOP_WINDOW_FULL || s.result.stop == ESPALIER_STOP_END_TOKEN));
    REQUIRE(all.ids.size() > 2);
    Written two;
    two.most = 2;
    REQUIRE(s.generate("ab", &options, keep, &two) == ESPALIER_OK);
    CHECK(s.result.stop == ESPALIER_STOP_CALLBACK);
    CHECK(two.ids == std::vector<int32_t>(all.ids.begin(), all.ids.begin() + 2));
    CHECK(all.text.starts_with(two.text));
    auto one = options;
    one.max_tokens = 1;
    REQUIRE(s.generate("ab", &one, nullptr, nullptr) == ESPALIER_OK);
    CHECK(s.result.stop == ESPALIER_STOP_MAX_TOKENS);
    CHECK(s.result.tokens == 1);
}

TEST_CASE("mistakes have statuses") {
    Session s(8);
    CHECK(s.generate(std::string(20, 'c'), nullptr, nullptr, nullptr) == ESPALIER_TOO_LONG);
    CHECK(std::string(s.error.message).find("less than 8") != std::string::npos);
    auto options = warm(1);
    options.top_p = 2;
    CHECK(s.generate("a", &options, nullptr, nullptr) == ESPALIER_INVALID_ARGUMENT);
    options = warm(1);
    options.struct_size = 1000;
    CHECK(s.generate("a", &options, nullptr, nullptr) == ESPALIER_INVALID_ARGUMENT);
    const espalier_text pair{"a", 1, "b", 1};
    CHECK(espalier_generate(s.context, &pair, nullptr, nullptr, nullptr, nullptr, nullptr) ==
          ESPALIER_INVALID_ARGUMENT);
    CHECK(espalier_generate(nullptr, &pair, nullptr, nullptr, nullptr, nullptr, nullptr) ==
          ESPALIER_INVALID_ARGUMENT);
    float vector[16];
    const espalier_text text{"a", 1, nullptr, 0};
    CHECK(espalier_embed_text(s.context, &text, vector, nullptr, nullptr) == ESPALIER_UNSUPPORTED);
    Session encoder(16, tiny_model_bytes);
    CHECK(encoder.generate("a", nullptr, nullptr, nullptr) == ESPALIER_UNSUPPORTED);
}

TEST_CASE("ids of a text, and its perplexity") {
    Session s(10);
    const espalier_text text{"abc ab", 6, nullptr, 0};
    int32_t ids[16];
    size_t count = 0;
    int truncated = 1;
    REQUIRE(espalier_tokenize(s.context, &text, 0, ids, nullptr, 16, &count, &truncated, nullptr) ==
            ESPALIER_OK);
    CHECK(count > 2);
    CHECK(ids[0] == 1);
    CHECK(truncated == 0);
    REQUIRE(espalier_tokenize(s.context, &text, 0, ids, nullptr, 2, &count, &truncated, nullptr) ==
            ESPALIER_OK);
    CHECK(count == 2);
    CHECK(truncated == 1);
    espalier_perplexity_result result;
    result.struct_size = sizeof(result);
    REQUIRE(espalier_perplexity(s.context, "abc ab", 6, &result, nullptr) == ESPALIER_OK);
    CHECK(result.windows == 1);
    CHECK(result.perplexity > 1);
    CHECK(espalier_perplexity(s.context, "", 0, &result, nullptr) == ESPALIER_INVALID_ARGUMENT);
}

TEST_CASE("contexts on one model do not meet") {
    Session s(60);
    std::vector<Written> written(4);
    std::vector<std::thread> threads;
    for (Written& each : written) {
        threads.emplace_back([&] {
            espalier_context* context = nullptr;
            const espalier_text prompt{"cab", 3, nullptr, 0};
            const auto options = warm(9);
            if (espalier_context_create(s.model, nullptr, &context, nullptr) == ESPALIER_OK)
                espalier_generate(context, &prompt, &options, keep, &each, nullptr, nullptr);
            espalier_context_destroy(context);
        });
    }
    for (std::thread& thread : threads)
        thread.join();
    for (const Written& each : written) {
        CHECK(!each.ids.empty());
        CHECK(each.ids == written[0].ids);
    }
}
