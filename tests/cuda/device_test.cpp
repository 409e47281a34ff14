// Naming a device: what is no name, and what is asked for where it is not to be had.
#include <doctest/doctest.h>

#include <cstring>

#include "base/error.h"
#include "espalier/espalier.h"
#include "runtime/device_encoder.h"
#include "tests/tiny_model.h"

namespace {

using namespace espalier;

struct Answer {
    espalier_status status;
    espalier_error error;
};

Answer context_on(const char* device) {
    static const auto bytes = test::tiny_model();
    espalier_model* model = nullptr;
    REQUIRE(espalier_model_from_memory(bytes.span().data(), bytes.span().size(), nullptr, &model, nullptr) ==
            ESPALIER_OK);
    espalier_context_options options;
    espalier_context_options_init(&options);
    options.device = device;
    espalier_context* context = nullptr;
    Answer answer{};
    answer.status = espalier_context_create(model, &options, &context, &answer.error);
    CHECK((context != nullptr) == (answer.status == ESPALIER_OK));
    espalier_context_destroy(context);
    espalier_model_close(model);
    return answer;
}

}  // namespace

TEST_CASE("names of devices") {
    CHECK(!device_named("").is_cuda);
    CHECK(!device_named("cpu").is_cuda);
    CHECK(device_named("cuda").is_cuda);
    CHECK(device_named("cuda").number == 0);
    CHECK(device_named("cuda:12").number == 12);
    for (const char* name : {"gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999", "CUDA"})
        CHECK_THROWS_AS(device_named(name), Error);
}

TEST_CASE("a context on the CPU by name, and on what is no device") {
    CHECK(context_on("cpu").status == ESPALIER_OK);
    const Answer answer = context_on("tpu");
    CHECK(answer.status == ESPALIER_INVALID_ARGUMENT);
    CHECK(std::strstr(answer.error.message, "tpu") != nullptr);
}

TEST_CASE("a GPU that is not there is a status with a message") {
    const Answer answer = context_on("cuda:4095");
    CHECK(answer.status == ESPALIER_UNSUPPORTED);
    CHECK(std::strstr(answer.error.message, cuda_compiled_in() ? "cuda" : "ESPALIER_CUDA") != nullptr);
}
