/* The allocator hooks: everything comes back, alignment is kept, and running out of memory at any point is
 * a status. */
#include <stdint.h>
#include <stdlib.h>

#include "tests/api/check.h"
#include "tests/api/models.h"

static espalier_error error;

struct heap {
    size_t live_bytes, live_blocks, allocations, most_bytes;
    size_t fail_at; /* this allocation, counted from 1, returns null; 0: none */
};

static void* take(void* user, size_t bytes, size_t alignment) {
    struct heap* heap = (struct heap*)user;
    void* pointer;
    CHECK(alignment > 0 && alignment <= 64 && (alignment & (alignment - 1)) == 0);
    if (++heap->allocations == heap->fail_at) return NULL;
    pointer = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (pointer == NULL) return NULL;
    memset(pointer, 0xcd, bytes);
    heap->live_bytes += bytes;
    ++heap->live_blocks;
    if (heap->live_bytes > heap->most_bytes) heap->most_bytes = heap->live_bytes;
    return pointer;
}

static void give_back(void* user, void* pointer, size_t bytes, size_t alignment) {
    struct heap* heap = (struct heap*)user;
    CHECK(pointer != NULL && alignment <= 64 && heap->live_bytes >= bytes && heap->live_blocks > 0);
    heap->live_bytes -= bytes;
    --heap->live_blocks;
    free(pointer);
}

/* Everything a program does, in order; the first failure ends it. */
static espalier_status whole_life(struct heap* heap, const char* backend, float* logits) {
    espalier_model_options options;
    espalier_model* model = NULL;
    espalier_context* context = NULL;
    espalier_classification result;
    espalier_text text = text_of("the tree leaf, \xc3\xa9 a b c");
    espalier_status status;
    float vector[8];
    size_t bytes;
    const void* data = tiny_model_bytes(&bytes);
    text.pair = "a leaf";
    text.pair_bytes = 6;
    espalier_model_options_init(&options);
    options.backend = backend;
    options.allocator.allocate = take;
    options.allocator.release = give_back;
    options.allocator.user = heap;
    status = espalier_model_from_memory(data, bytes, &options, &model, &error);
    if (status == ESPALIER_OK) status = espalier_context_create(model, NULL, &context, &error);
    if (status == ESPALIER_OK) status = espalier_embed_text(context, &text, vector, NULL, &error);
    if (status == ESPALIER_OK) status = espalier_classify_text(context, &text, 0, &result, logits, &error);
    espalier_context_destroy(context);
    espalier_model_close(model);
    CHECK(one_line(&error) && error.status == status);
    return status;
}

static void test_backend(const char* backend) {
    struct heap heap = {0, 0, 0, 0, 0};
    float expected[2], logits[2];
    size_t total, n;
    CHECK(whole_life(&heap, backend, expected) == ESPALIER_OK);
    CHECK(heap.live_bytes == 0 && heap.live_blocks == 0 && heap.allocations > 0);
    total = heap.allocations;
    printf("%s: %zu allocations through the hooks, %zu bytes at most\n", backend, total, heap.most_bytes);
    for (n = 1; n <= total + 1; ++n) {
        espalier_status status;
        memset(&heap, 0, sizeof(heap));
        heap.fail_at = n;
        status = whole_life(&heap, backend, logits);
        CHECK(status == (n <= total ? ESPALIER_OUT_OF_MEMORY : ESPALIER_OK));
        CHECK(heap.live_bytes == 0 && heap.live_blocks == 0);
        if (status == ESPALIER_OK) CHECK(memcmp(logits, expected, sizeof(logits)) == 0);
    }
}

/* A context that ran out of memory in a call works in the next. */
static void test_recovery(void) {
    struct heap heap = {0, 0, 0, 0, 0};
    espalier_model_options options;
    espalier_model* model = NULL;
    espalier_context* context = NULL;
    espalier_text text = text_of("the tree");
    float vector[8];
    size_t bytes, calls = 0;
    const void* data = tiny_model_bytes(&bytes);
    espalier_model_options_init(&options);
    options.backend = "native";
    options.allocator.allocate = take;
    options.allocator.release = give_back;
    options.allocator.user = &heap;
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_context_create(model, NULL, &context, &error), ESPALIER_OK);
    options.huge_pages = 1; /* the caller's memory is the caller's choice */
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error),
                 ESPALIER_INVALID_ARGUMENT);
    do { /* each attempt gets one allocation further */
        heap.fail_at = heap.allocations + 1;
        ++calls;
    } while (calls < 100 &&
             espalier_embed_text(context, &text, vector, NULL, &error) == ESPALIER_OUT_OF_MEMORY &&
             (heap.fail_at = 0, espalier_embed_text(context, &text, vector, NULL, &error) != ESPALIER_OK));
    CHECK(error.status == ESPALIER_OK);
    heap.fail_at = heap.allocations + 1; /* warm: nothing is asked for any more */
    CHECK_STATUS(espalier_embed_text(context, &text, vector, NULL, &error), ESPALIER_OK);
    espalier_context_destroy(context);
    espalier_model_close(model);
    CHECK(heap.live_bytes == 0);
}

/* What espalier_context_bytes says before is what a context takes, whatever the tokens and threads: its arena
 * to the byte, and beside it only what does not grow with them; calls on token ids take nothing more. */
static void test_planned(void) {
    static const uint32_t tokens[] = {1, 2, 7};
    static const int32_t ids[] = {2, 5, 6, 7, 8, 9, 3};
    size_t t;
    int threads;
    for (t = 0; t < sizeof(tokens) / sizeof(tokens[0]); ++t) {
        for (threads = 1; threads <= 3; ++threads) {
            struct heap heap = {0, 0, 0, 0, 0};
            espalier_model_options options;
            espalier_context_options shape;
            espalier_model* model = NULL;
            espalier_context* context = NULL;
            espalier_batch batch = {ids, NULL, NULL, 1};
            uint32_t offsets[2] = {0, 0};
            float hidden[7 * 8];
            size_t bytes, planned = 0, before, beside = 0, taken, allocations;
            const void* data = tiny_model_bytes(&bytes);
            espalier_model_options_init(&options);
            options.backend = "native";
            options.allocator.allocate = take;
            options.allocator.release = give_back;
            options.allocator.user = &heap;
            espalier_context_options_init(&shape);
            shape.max_tokens = tokens[t];
            shape.max_sequences = 1;
            shape.threads = threads;
            CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error), ESPALIER_OK);
            before = heap.live_bytes;
            CHECK_STATUS(espalier_context_bytes(model, &shape, &planned, &error), ESPALIER_OK);
            CHECK(planned > 0 && heap.live_bytes == before);
            CHECK_STATUS(espalier_context_create(model, &shape, &context, &error), ESPALIER_OK);
            CHECK(heap.live_bytes - before >= planned);
            taken = heap.live_bytes;
            allocations = heap.allocations;
            offsets[1] = tokens[t];
            batch.offsets = offsets;
            CHECK_STATUS(espalier_encode(context, &batch, hidden, &error), ESPALIER_OK);
            CHECK(heap.allocations == allocations);
            espalier_context_destroy(context);

            /* In the caller's arena of exactly so many bytes: what is taken beside it, and nothing behind its
             * end. */
            shape.arena_bytes = planned;
            shape.arena = aligned_alloc(64, (planned + 127) / 64 * 64);
            CHECK(shape.arena != NULL);
            memset(shape.arena, 0xab, (planned + 127) / 64 * 64);
            CHECK_STATUS(espalier_context_create(model, &shape, &context, &error), ESPALIER_OK);
            beside = heap.live_bytes - before;
            CHECK(taken - before == planned + beside && beside < 4096);
            CHECK_STATUS(espalier_encode(context, &batch, hidden, &error), ESPALIER_OK);
            for (bytes = planned; bytes < (planned + 127) / 64 * 64; ++bytes)
                CHECK(((const unsigned char*)shape.arena)[bytes] == 0xab);
            espalier_context_destroy(context);
            shape.arena_bytes = planned - 1;
            CHECK_STATUS(espalier_context_create(model, &shape, &context, &error), ESPALIER_INVALID_ARGUMENT);
            free(shape.arena);
            espalier_model_close(model);
        }
    }
}

int main(int argc, char** argv) {
    int i;
    for (i = 1; i < argc; ++i)
        test_backend(argv[i]);
    test_recovery();
    test_planned();
    return finish("api_memory_test");
}
