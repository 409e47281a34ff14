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

int main(int argc, char** argv) {
    int i;
    for (i = 1; i < argc; ++i)
        test_backend(argv[i]);
    test_recovery();
    return finish("api_memory_test");
}
