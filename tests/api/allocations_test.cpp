// What a warm context allocates: nothing with the native backend, a bounded number of times with oneDNN.
// Counts by standing in for malloc, which operator new, oneDNN and OpenMP end in as well.
#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "espalier/espalier.h"
#include "kernels/dense/dense.h"
#include "runtime/model.h"
#include "tests/api/models.h"
#include "tests/skip.h"

// Sanitizers bring a malloc of their own, and only glibc lets its own be called by name.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
#define ESPALIER_COUNTS_MALLOC 1
#else
#define ESPALIER_COUNTS_MALLOC 0
#endif

namespace {

struct Counter {
    size_t taken = 0, freed = 0;
    size_t fail_at = 0;  // this allocation, counted from 1, returns null; 0: none
    bool on = false;
};
thread_local Counter counter;  // of this thread: only our own calls are judged

#if ESPALIER_COUNTS_MALLOC
bool refuse() {
    if (!counter.on) return false;
    ++counter.taken;
    if (counter.taken != counter.fail_at) return false;
    errno = ENOMEM;
    return true;
}
#endif

}  // namespace

#if ESPALIER_COUNTS_MALLOC
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* pointer, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* pointer);

void* malloc(size_t bytes) {
    return refuse() ? nullptr : __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
    return refuse() ? nullptr : __libc_calloc(count, bytes);
}
void* realloc(void* pointer, size_t bytes) {
    if (refuse()) return nullptr;
    if (counter.on && pointer != nullptr) ++counter.freed;
    return __libc_realloc(pointer, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
    return refuse() ? nullptr : __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
    return refuse() ? nullptr : __libc_memalign(alignment, bytes);
}
int posix_memalign(void** target, size_t alignment, size_t bytes) {
    if (refuse()) return ENOMEM;
    *target = __libc_memalign(alignment, bytes);
    return *target == nullptr ? ENOMEM : 0;
}
void free(void* pointer) {
    if (counter.on && pointer != nullptr) ++counter.freed;
    __libc_free(pointer);
}
}
#endif

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
    if (ESPALIER_COUNTS_MALLOC == 0) return espalier::test::skip("malloc is not ours to count here");
    Session session("native");
    std::vector<float> out(16 * 96);
    const auto expected = static_cast<int>(5 * texts().size());
    REQUIRE(session.run(out.data()) == expected);
    counter = {0, 0, 0, true};
    const int good = session.run(out.data());
    const Counter counted = counter;
    counter = {};
    CHECK(good == expected);
    CHECK(counted.taken == 0);
    CHECK(counted.freed == 0);
}

TEST_CASE("native: a warm decoder allocates nothing") {
    if (ESPALIER_COUNTS_MALLOC == 0) return espalier::test::skip("malloc is not ours to count here");
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
    counter = {0, 0, 0, true};
    const int good = run();
    const Counter counted = counter;
    counter = {};
    CHECK(good == 6);
    CHECK(counted.taken == 0);
    CHECK(counted.freed == 0);
    espalier_context_destroy(context);
    espalier_model_close(model);
}

TEST_CASE("oneDNN: a warm context allocates a bounded number of times a dense layer") {
    if (ESPALIER_COUNTS_MALLOC == 0 || !espalier::onednn_compiled_in()) return;
    const auto isa = espalier::chosen_isa("");
    if (isa == espalier::Isa::scalar || isa == espalier::Isa::neon) return;
    Session session("onednn");
    std::vector<float> out(16 * 96);
    session.run(out.data());
    counter = {0, 0, 0, true};
    session.run(out.data());
    const Counter counted = counter;
    counter = {};
    // Per text: four encodings of 2 x 2 projections and 2 x 2 dense layers, and two heads of two layers.
    const size_t layers = texts().size() * (4 * 8 + 2 * 2);
    MESSAGE(counted.taken, " allocations in ", layers,
            " dense layers: ", static_cast<double>(counted.taken) / static_cast<double>(layers), " each");
    CHECK(counted.taken == counted.freed);
    CHECK(counted.taken <= 16 * layers);
}

TEST_CASE("native: every allocation may fail, operator new's too: a status, nothing leaked, no crash") {
    if (ESPALIER_COUNTS_MALLOC == 0) return;
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
        counter = {0, 0, n, true};
        const auto status = life(error);
        const Counter counted = counter;
        counter = {};
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
