// What classifying 128 tokens with the shipped model takes, of the machine's memory: the pages of the file
// that were touched, and at most 4 MB beside them. Counted twice: by the allocator's hooks, and by the pages
// that the system says are resident (Linux).
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "espalier/espalier.h"
#include "tests/skip.h"

namespace {

constexpr size_t limit = 4000000;

struct Heap {
    size_t live = 0, most = 0;
};

void* take(void* user, size_t bytes, size_t alignment) {
    auto* heap = static_cast<Heap*>(user);
    heap->live += bytes;
    heap->most = std::max(heap->most, heap->live);
    return std::aligned_alloc(alignment,
                              (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment);
}
void give_back(void* user, void* pointer, size_t bytes, size_t) {
    static_cast<Heap*>(user)->live -= bytes;
    std::free(pointer);
}

struct Resident {
    size_t anonymous = 0;                        // bytes of the whole process that no file stands for
    size_t file = 0, file_copied = 0, size = 0;  // of the model's mapping: touched, written to, in all
};

// Nothing found: no such system.
Resident resident(const char* path) {
    Resident found;
    std::FILE* smaps = std::fopen("/proc/self/smaps", "r");
    if (smaps == nullptr) return found;
    char line[1024];
    bool of_model = false;
    while (std::fgets(line, sizeof(line), smaps) != nullptr) {
        unsigned long begin = 0, end = 0, kilobytes = 0;
        char name[64];
        if (std::sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
            of_model = std::strstr(line, path) != nullptr;
            if (of_model) found.size += end - begin;
        } else if (std::sscanf(line, "%63[^:]: %lu kB", name, &kilobytes) == 2) {
            const size_t bytes = kilobytes * 1024;
            if (std::strcmp(name, "Anonymous") == 0)
                (of_model ? found.file_copied : found.anonymous) += bytes;
            if (of_model && std::strcmp(name, "Rss") == 0) found.file += bytes;
        }
    }
    std::fclose(smaps);
    return found;
}

// A text of more than 128 tokens, its beginning taken.
void classify(const char* path, Heap* heap, const std::string& backend, Resident& after) {
    espalier_model_options options;
    espalier_model_options_init(&options);
    options.backend = backend.c_str();
    if (heap != nullptr) options.allocator = {take, give_back, heap};
    espalier_context_options shape;
    espalier_context_options_init(&shape);
    shape.max_tokens = 128;
    shape.max_sequences = 1;
    std::string words;
    for (int i = 0; i < 40; ++i)
        words += "a charming and often affecting journey , no " + std::to_string(i) + " of many ; ";
    espalier_model* model = nullptr;
    espalier_context* context = nullptr;
    espalier_error error;
    REQUIRE_MESSAGE(espalier_model_open(path, &options, &model, &error) == ESPALIER_OK, error.message);
    REQUIRE(espalier_context_create(model, &shape, &context, nullptr) == ESPALIER_OK);
    const espalier_text text{words.data(), words.size(), nullptr, 0};
    espalier_classification result;
    REQUIRE(espalier_classify_text(context, &text, 0, &result, nullptr, nullptr) == ESPALIER_OK);
    CHECK(result.truncated == 1);
    CHECK(std::string(result.name) == "positive");
    after = resident(path);
    espalier_context_destroy(context);
    espalier_model_close(model);
}

}  // namespace

TEST_CASE("classification of 128 tokens needs the file's touched pages and 4 MB") {
    const char* path = ESPALIER_SOURCE_DIR "/models/minilm-trees.esp";
#if defined(ESPALIER_EMULATOR) || defined(__SANITIZE_ADDRESS__)
    espalier::test::skip("pages of an emulator or a sanitizer are not the program's");
    return;
#endif
    if (resident(path).anonymous == 0) {
        espalier::test::skip("the system does not say which pages are resident (/proc/self/smaps)");
        return;
    }
#if defined(__GLIBC__)
    // Left alone, the C library would keep what the second model's opening has freed, since the first taught
    // it that pieces of that size come and go; a program that opens one model never gets there.
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
    for (const bool hooked : {true, false}) {
        CAPTURE(hooked);
        const Resident before = resident(path);
        Heap heap;
        Resident after;
        classify(path, hooked ? &heap : nullptr, "native", after);
        if (hooked) {
            MESSAGE("through the hooks ", heap.most, " bytes at most");
            CHECK(heap.most > 0);
            CHECK(heap.most <= limit);
            CHECK(heap.live == 0);
        }
        MESSAGE("anonymous pages ", after.anonymous - before.anonymous, " bytes, of the file ", after.file,
                " of ", after.size);
        CHECK(after.anonymous <= before.anonymous + limit);
        // Used where it lies, never copied; rows of embeddings that no token asks for stay in the file.
        CHECK(after.file > 0);
        CHECK(after.file < after.size);
        CHECK(after.file_copied == 0);
    }
}
