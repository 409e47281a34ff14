/* The C API's ways in: opening, options, memory, null pointers, cancelling, logging. */
#include <stdint.h>
#include <stdlib.h>

#include "tests/api/check.h"
#include "tests/api/models.h"

static espalier_error error;

static espalier_model* open_tiny(void) {
    espalier_model* model = NULL;
    size_t bytes;
    const void* data = tiny_model_bytes(&bytes);
    CHECK_STATUS(espalier_model_from_memory(data, bytes, NULL, &model, &error), ESPALIER_OK);
    return model;
}

static void test_open(const char* path) {
    espalier_model* model = NULL;
    espalier_model_options options;
    size_t bytes;
    const char* data = (const char*)tiny_model_bytes(&bytes);
    CHECK(write_bytes(path, data, bytes));
    CHECK_STATUS(espalier_model_open(path, NULL, &model, &error), ESPALIER_OK);
    espalier_model_close(model);
    espalier_model_options_init(&options);
    options.use_mmap = 0;
    options.verify = 1;
    options.isa = "scalar";
    options.backend = "native";
    CHECK_STATUS(espalier_model_open(path, &options, &model, &error), ESPALIER_OK);
    espalier_model_close(model);
    model = NULL;
    CHECK_STATUS(espalier_model_open("no/such/file.esp", NULL, &model, &error), ESPALIER_IO);
    CHECK(strstr(error.message, "no/such/file.esp") != NULL && model == NULL);
    CHECK_STATUS(espalier_model_open(".", NULL, &model, &error), error.status);
    CHECK(error.status == ESPALIER_IO || error.status == ESPALIER_BAD_MODEL);
    CHECK(write_bytes(path, "this is no model", 16));
    CHECK_STATUS(espalier_model_open(path, NULL, &model, &error), ESPALIER_BAD_MODEL);
    CHECK(write_bytes(path, "", 0));
    CHECK_STATUS(espalier_model_open(path, NULL, &model, &error), ESPALIER_BAD_MODEL);
    CHECK(model == NULL);
    CHECK(espalier_model_open("no/such/file.esp", NULL, &model, NULL) == ESPALIER_IO);
    remove(path);
}

static void test_from_memory(void) {
    espalier_model* model = NULL;
    size_t bytes;
    const char* data = (const char*)tiny_model_bytes(&bytes);
    CHECK_STATUS(espalier_model_from_memory(data, 0, NULL, &model, &error), ESPALIER_BAD_MODEL);
    CHECK_STATUS(espalier_model_from_memory(data, 100, NULL, &model, &error), ESPALIER_BAD_MODEL);
    CHECK_STATUS(espalier_model_from_memory(data, bytes - 1, NULL, &model, &error), ESPALIER_BAD_MODEL);
    CHECK_STATUS(espalier_model_from_memory(data + 4, bytes - 4, NULL, &model, &error), error.status);
    CHECK(error.status == ESPALIER_INVALID_ARGUMENT || error.status == ESPALIER_BAD_MODEL);
    CHECK(model == NULL);
}

static void test_model_options(void) {
    espalier_model* model = NULL;
    espalier_model_options options;
    size_t bytes;
    const void* data = tiny_model_bytes(&bytes);
    espalier_model_options_init(&options);
    CHECK(options.struct_size == sizeof(options) && options.use_mmap == 1 && options.isa == NULL);
    options.isa = "sse9";
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error),
                 ESPALIER_INVALID_ARGUMENT);
    options.isa = "neon";
    CHECK(espalier_model_from_memory(data, bytes, &options, &model, &error) != ESPALIER_INVALID_ARGUMENT);
    espalier_model_close(model);
    model = NULL;
    options.isa = "scalar";
    options.backend = "onednn";
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error), ESPALIER_UNSUPPORTED);
    options.backend = "blas";
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error),
                 ESPALIER_INVALID_ARGUMENT);
    /* Unknown, larger structs are refused; older, shorter ones are read as far as they go. */
    options.backend = "native";
    options.struct_size = sizeof(options) + 8;
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error),
                 ESPALIER_INVALID_ARGUMENT);
    options.struct_size = 0;
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error),
                 ESPALIER_INVALID_ARGUMENT);
    options.struct_size = offsetof(espalier_model_options, backend);
    options.backend = (const char*)1; /* beyond the struct: must not be read */
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error), ESPALIER_OK);
    espalier_model_close(model);
    CHECK(model != NULL);
}

static void test_arena(void) {
    espalier_model* model = open_tiny();
    espalier_context* context = NULL;
    espalier_context_options options;
    espalier_text text = text_of("the tree");
    float own[8], given[8];
    size_t bytes = 0;
    char *block, *arena;
    espalier_context_options_init(&options);
    CHECK_STATUS(espalier_context_bytes(model, &options, &bytes, &error), ESPALIER_OK);
    CHECK(bytes > 0);
    block = (char*)malloc(bytes + 64);
    arena = block + (64 - (uintptr_t)block % 64) % 64;
    options.arena = arena;
    options.arena_bytes = bytes;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_embed_text(context, &text, given, NULL, &error), ESPALIER_OK);
    espalier_context_destroy(context);
    context = NULL;
    options.arena_bytes = bytes - 1;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    CHECK(strstr(error.message, "arena") != NULL);
    options.arena_bytes = 0;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    options.arena = arena + 16;
    options.arena_bytes = bytes;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    CHECK(context == NULL);
    CHECK_STATUS(espalier_context_create(model, NULL, &context, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_embed_text(context, &text, own, NULL, &error), ESPALIER_OK);
    CHECK(memcmp(own, given, sizeof(own)) == 0);
    espalier_context_destroy(context);
    espalier_model_close(model);
    free(block);
}

static void test_context_options(void) {
    espalier_model* model = open_tiny();
    espalier_context* context = NULL;
    espalier_context_options options;
    espalier_text text = text_of("a b c d a b c d");
    float vector[8];
    int truncated = 0;
    size_t bytes;
    espalier_context_options_init(&options);
    options.threads = 0;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    CHECK_STATUS(espalier_context_bytes(model, &options, &bytes, &error), ESPALIER_INVALID_ARGUMENT);
    options.threads = 1000000;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    options.threads = 1;
    options.max_tokens = UINT32_MAX;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    options.max_tokens = 5;
    options.struct_size = sizeof(options) + 1;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_INVALID_ARGUMENT);
    options.struct_size = sizeof(options);
    CHECK(context == NULL);
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_embed_text(context, &text, vector, &truncated, &error), ESPALIER_OK);
    CHECK(truncated == 1);
    espalier_context_destroy(context);
    options.max_tokens = 1; /* not even [CLS][SEP] */
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_embed_text(context, &text, vector, &truncated, &error), ESPALIER_INVALID_ARGUMENT);
    espalier_context_destroy(context);
    espalier_model_close(model);
}

static int layers_before_cancel = 0, cancel = 0;
static void cancel_in_layer(void* user, uint32_t layer, const float* values, size_t tokens) {
    (void)user, (void)values, (void)tokens;
    if ((int)layer == layers_before_cancel) cancel = 1;
}

static void test_cancel(void) {
    espalier_model* model = open_tiny();
    espalier_context* context = NULL;
    espalier_context_options options;
    espalier_routes routes;
    espalier_text text = text_of("the tree");
    float vector[8];
    espalier_context_options_init(&options);
    options.cancel = &cancel;
    CHECK_STATUS(espalier_context_create(model, &options, &context, &error), ESPALIER_OK);
    espalier_on_layer(context, cancel_in_layer, NULL);
    for (layers_before_cancel = 0; layers_before_cancel < 2; ++layers_before_cancel) {
        cancel = 0;
        CHECK_STATUS(espalier_embed_text(context, &text, vector, NULL, &error), ESPALIER_CANCELLED);
        /* No successful call: no tokens went anywhere. */
        routes.struct_size = sizeof(routes);
        CHECK(espalier_get_routes(context, 0, &routes) == ESPALIER_OK && routes.tokens == 0);
    }
    espalier_on_layer(context, NULL, NULL);
    cancel = 1;
    CHECK_STATUS(espalier_embed_text(context, &text, vector, NULL, &error), ESPALIER_CANCELLED);
    cancel = 0;
    CHECK_STATUS(espalier_embed_text(context, &text, vector, NULL, &error), ESPALIER_OK);
    espalier_context_destroy(context);
    espalier_model_close(model);
}

static void test_nulls(void) {
    espalier_model* model = open_tiny();
    espalier_context* context = NULL;
    espalier_text text = text_of("a");
    espalier_classification result;
    espalier_batch batch;
    espalier_model_info info;
    espalier_head_info head;
    float out[64];
    int32_t ids[16];
    size_t count, bytes;
    const void* data = tiny_model_bytes(&bytes);
    const espalier_status bad = ESPALIER_INVALID_ARGUMENT;
    info.struct_size = sizeof(info);
    head.struct_size = sizeof(head);
    memset(&batch, 0, sizeof(batch));
    CHECK_STATUS(espalier_model_open(NULL, NULL, &model, &error), bad);
    CHECK_STATUS(espalier_model_open("x", NULL, NULL, &error), bad);
    CHECK_STATUS(espalier_model_from_memory(NULL, bytes, NULL, &model, &error), bad);
    CHECK_STATUS(espalier_model_from_memory(data, bytes, NULL, NULL, &error), bad);
    CHECK(espalier_model_get_info(NULL, &info) == bad && espalier_model_get_info(model, NULL) == bad);
    CHECK(espalier_model_get_head(NULL, 0, &head) == bad && espalier_model_get_head(model, 0, NULL) == bad);
    CHECK_STATUS(espalier_context_bytes(NULL, NULL, &bytes, &error), bad);
    CHECK_STATUS(espalier_context_bytes(model, NULL, NULL, &error), bad);
    CHECK_STATUS(espalier_context_create(NULL, NULL, &context, &error), bad);
    CHECK_STATUS(espalier_context_create(model, NULL, NULL, &error), bad);
    CHECK_STATUS(espalier_context_create(model, NULL, &context, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_tokenize(NULL, &text, 0, ids, NULL, 16, &count, NULL, &error), bad);
    CHECK_STATUS(espalier_tokenize(context, NULL, 0, ids, NULL, 16, &count, NULL, &error), bad);
    CHECK_STATUS(espalier_tokenize(context, &text, 0, NULL, NULL, 16, &count, NULL, &error), bad);
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, NULL, 16, NULL, NULL, &error), bad);
    CHECK_STATUS(espalier_encode(NULL, &batch, out, &error), bad);
    CHECK_STATUS(espalier_encode(context, NULL, out, &error), bad);
    CHECK_STATUS(espalier_encode(context, &batch, out, &error), bad);
    CHECK_STATUS(espalier_encode(context, &batch, NULL, &error), bad);
    CHECK_STATUS(espalier_embed(NULL, &batch, out, &error), bad);
    CHECK_STATUS(espalier_embed(context, NULL, out, &error), bad);
    CHECK_STATUS(espalier_embed(context, &batch, NULL, &error), bad);
    CHECK_STATUS(espalier_score(NULL, &batch, 0, out, &error), bad);
    CHECK_STATUS(espalier_score(context, NULL, 0, out, &error), bad);
    CHECK_STATUS(espalier_score(context, &batch, 0, NULL, &error), bad);
    CHECK_STATUS(espalier_embed_text(NULL, &text, out, NULL, &error), bad);
    CHECK_STATUS(espalier_embed_text(context, NULL, out, NULL, &error), bad);
    CHECK_STATUS(espalier_embed_text(context, &text, NULL, NULL, &error), bad);
    CHECK_STATUS(espalier_classify_text(NULL, &text, 0, &result, out, &error), bad);
    CHECK_STATUS(espalier_classify_text(context, NULL, 0, &result, out, &error), bad);
    CHECK_STATUS(espalier_classify_text(context, &text, 0, NULL, out, &error), bad);
    CHECK(espalier_embed_text(context, NULL, out, NULL, NULL) == bad);
    espalier_model_options_init(NULL);
    espalier_context_options_init(NULL);
    espalier_context_destroy(NULL);
    espalier_model_close(NULL);
    espalier_context_destroy(context);
    espalier_model_close(model);
}

static int lines = 0;
static void count_line(void* user, espalier_log_level level, const char* message) {
    CHECK(user == &lines && (level == ESPALIER_LOG_INFO || level == ESPALIER_LOG_WARNING));
    CHECK(strlen(message) > 0 && strchr(message, '\n') == NULL);
    ++lines;
}

static void test_logger(void) {
    espalier_model* model = NULL;
    espalier_model_options options;
    size_t bytes;
    const void* data = tiny_model_bytes(&bytes);
    espalier_model_options_init(&options);
    options.logger.log = count_line;
    options.logger.user = &lines;
    CHECK_STATUS(espalier_model_from_memory(data, bytes, &options, &model, &error), ESPALIER_OK);
    CHECK(lines >= 1);
    espalier_model_close(model);
}

/* argv[1]: a file name that this test may write. */
int main(int argc, char** argv) {
    if (argc != 2) return 2;
    test_open(argv[1]);
    test_from_memory();
    test_model_options();
    test_arena();
    test_context_options();
    test_cancel();
    test_nulls();
    test_logger();
    return finish("api_options_test");
}
