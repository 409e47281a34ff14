// The C++ wrapper: values, exceptions, ownership.
#include <doctest/doctest.h>

#include <cmath>
#include <utility>

#include "espalier/espalier.hpp"
#include "tests/api/models.h"

namespace {

using espalier::api::Context;
using espalier::api::Exception;
using espalier::api::Model;

Model open_tiny(const espalier_model_options* options = nullptr) {
    size_t bytes = 0;
    const void* data = tiny_model_bytes(&bytes);
    return Model(data, bytes, options);
}

template <typename Function>
espalier_status status_of(const Function& function) {
    try {
        function();
    } catch (const Exception& error) {
        CHECK(std::string(error.what()).size() > 0);
        return error.status();
    }
    return ESPALIER_OK;
}

}  // namespace

TEST_CASE("info, heads, classification, embedding") {
    const Model model = open_tiny();
    CHECK(model.info().hidden == 8);
    CHECK(model.head("sentiment") == 0u);
    CHECK(model.head("score") == 1u);
    CHECK(!model.head("no such head"));
    Context context(model);
    const auto one = context.classify("the tree");
    CHECK(one.logits.size() == 2);
    CHECK((one.name == "negative" || one.name == "positive"));
    CHECK(one.probability >= 0.5F);
    CHECK(!one.truncated);
    CHECK(context.classify("the tree").logits == one.logits);
    CHECK(context.classify("the tree", "a leaf").logits != one.logits);
    // A second text that is empty is still a pair: one more [SEP].
    CHECK(context.classify("the tree", std::string_view()).logits != one.logits);
    CHECK(context.classify("the tree", 1u).name.empty());
    CHECK(context.classify("the tree", "a leaf", 1u).logits.size() == 1);
    CHECK(context.classify(std::string(3000, 'a') + " b b b b b b b b b b b b b b b b b b").truncated);
    const auto vector = context.embed("the tree");
    CHECK(vector.size() == 8);
    for (const float value : vector)
        CHECK(std::isfinite(value));
    CHECK(context.embed("").size() == 8);
}

TEST_CASE("errors are exceptions with the C API's status and message") {
    CHECK(status_of([] { Model("no/such/file.esp"); }) == ESPALIER_IO);
    CHECK(status_of([] { Model(nullptr, 0); }) == ESPALIER_INVALID_ARGUMENT);
    CHECK(status_of([] { Model("", 0, nullptr); }) != ESPALIER_OK);
    const Model model = open_tiny();
    Context context(model);
    CHECK(status_of([&] { context.classify("the tree", 2u); }) == ESPALIER_INVALID_ARGUMENT);
    espalier_context_options options;
    espalier_context_options_init(&options);
    options.threads = -1;
    CHECK(status_of([&] { Context(model, &options); }) == ESPALIER_INVALID_ARGUMENT);
    espalier_model_options model_options;
    espalier_model_options_init(&model_options);
    model_options.isa = "none";
    CHECK(status_of([&] { open_tiny(&model_options); }) == ESPALIER_INVALID_ARGUMENT);
}

TEST_CASE("a continuation is a string") {
    size_t bytes = 0;
    const void* data = decoder_model_bytes(&bytes);
    const Model model(data, bytes);
    Context context(model);
    espalier_generate_options options;
    espalier_generate_options_init(&options);
    options.temperature = 100;
    options.max_tokens = 30;
    const std::string text = context.generate("ab", &options);
    CHECK(text == context.generate("ab", &options));
    options.max_tokens = 2;
    CHECK(text.rfind(context.generate("ab", &options), 0) == 0);
    options.top_p = -1;
    CHECK(status_of([&] { context.generate("ab", &options); }) == ESPALIER_INVALID_ARGUMENT);
    CHECK(status_of([&] { Context(open_tiny()).generate("ab"); }) == ESPALIER_UNSUPPORTED);
}

TEST_CASE("handles move") {
    Model model = open_tiny();
    const espalier_model* handle = model.get();
    Context context(model);
    Context moved = std::move(context);
    CHECK(moved.embed("a").size() == 8);
    CHECK(context.get() == nullptr);  // NOLINT(bugprone-use-after-move)
    CHECK(handle != nullptr);
}
