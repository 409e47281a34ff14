/* The C API from C99: what it gives, and that every mistake is a status with a message. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/api/check.h"
#include "tests/api/models.h"

enum { hidden = 8, most_tokens = 16 };

static espalier_error error;
static espalier_model* model;
static espalier_context* context;

static void test_version_and_names(void) {
    int status;
    CHECK(strcmp(espalier_version(), "0.1.0") == 0);
    CHECK(strcmp(espalier_status_name(ESPALIER_OK), "ok") == 0);
    CHECK(strcmp(espalier_status_name(ESPALIER_TOO_LONG), "too_long") == 0);
    for (status = -3; status < 100; ++status)
        CHECK(espalier_status_name((espalier_status)status) != NULL);
}

static void test_info(void) {
    espalier_model_info info, shorter;
    espalier_head_info head;
    size_t bytes;
    tiny_model_bytes(&bytes);
    memset(&info, 0x77, sizeof(info));
    info.struct_size = sizeof(info);
    CHECK(espalier_model_get_info(model, &info) == ESPALIER_OK);
    CHECK(info.hidden == hidden && info.blocks == 2 && info.vocabulary == 24 &&
          info.max_tokens == most_tokens);
    CHECK(info.heads == 2 && info.forests == 2 && info.file_bytes == bytes);
    CHECK(info.active_neurons > 0 && info.stored_neurons > info.active_neurons && info.parameters > 0);
    CHECK(strlen(info.isa) > 0 && strlen(info.backend) > 0);
    /* A caller with an older, shorter struct gets what fits, and nothing behind it changes. */
    memset(&shorter, 0x77, sizeof(shorter));
    shorter.struct_size = offsetof(espalier_model_info, vocabulary);
    CHECK(espalier_model_get_info(model, &shorter) == ESPALIER_OK);
    CHECK(shorter.hidden == hidden && shorter.blocks == 2 && shorter.vocabulary == 0x77777777u);
    info.struct_size = sizeof(info) + 1;
    CHECK(espalier_model_get_info(model, &info) == ESPALIER_INVALID_ARGUMENT);
    info.struct_size = 0;
    CHECK(espalier_model_get_info(model, &info) == ESPALIER_INVALID_ARGUMENT);

    head.struct_size = sizeof(head);
    CHECK(espalier_model_get_head(model, 0, &head) == ESPALIER_OK);
    CHECK(strcmp(head.name, "sentiment") == 0 && head.outputs == 2 && !head.is_regression &&
          head.labels == 2);
    CHECK(espalier_model_get_head(model, 1, &head) == ESPALIER_OK);
    CHECK(strcmp(head.name, "score") == 0 && head.outputs == 1 && head.is_regression && head.labels == 0);
    CHECK(espalier_model_get_head(model, 2, &head) == ESPALIER_INVALID_ARGUMENT);
    CHECK(strcmp(head.name, "score") == 0);
    head.struct_size = sizeof(head) + 8;
    CHECK(espalier_model_get_head(model, 0, &head) == ESPALIER_INVALID_ARGUMENT);
    CHECK(strcmp(espalier_model_label(model, 0, 0), "negative") == 0);
    CHECK(strcmp(espalier_model_label(model, 0, 1), "positive") == 0);
    CHECK(espalier_model_label(model, 0, 2) == NULL && espalier_model_label(model, 1, 0) == NULL);
    CHECK(espalier_model_label(model, 9, 0) == NULL && espalier_model_label(NULL, 0, 0) == NULL);
}

static void test_tokenize(void) {
    int32_t ids[most_tokens + 4];
    uint8_t types[most_tokens + 4];
    size_t count = 99, i;
    int truncated = -1;
    espalier_text text = text_of("The tree.");
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, types, most_tokens, &count, &truncated, &error),
                 ESPALIER_OK);
    CHECK(count == 5 && truncated == 0 && ids[0] == 2 && ids[1] == 5 && ids[2] == 6 && ids[3] == 20 &&
          ids[4] == 3);
    text = text_of("[SEP]");
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, NULL, most_tokens, &count, NULL, &error),
                 ESPALIER_OK);
    CHECK(count == 3 && ids[1] == 3);
    CHECK_STATUS(espalier_tokenize(context, &text, ESPALIER_PLAIN_SPECIAL_TOKENS, ids, NULL, most_tokens,
                                   &count, NULL, &error),
                 ESPALIER_OK);
    CHECK(count == 5 && ids[1] == 1);
    text = text_of("a");
    text.pair = "b";
    text.pair_bytes = 1;
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, types, most_tokens, &count, &truncated, &error),
                 ESPALIER_OK);
    CHECK(count == 5 && types[0] == 0 && types[2] == 0 && types[3] == 1 && types[4] == 1);
    text = text_of("a b c d a b c d a b c d a b c d a b c d");
    for (i = 0; i < most_tokens + 4; ++i)
        ids[i] = -7;
    /* Nothing is written beyond the capacity; what stands between count and capacity is anyone's guess. */
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, NULL, most_tokens + 3, &count, &truncated, &error),
                 ESPALIER_OK);
    CHECK(count == most_tokens && truncated == 1 && ids[most_tokens - 1] == 3 && ids[most_tokens + 3] == -7);
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids + 16, NULL, 3, &count, &truncated, &error),
                 ESPALIER_OK);
    CHECK(count == 3 && truncated == 1 && ids[most_tokens + 3] == -7);
    /* No room for [CLS] and [SEP]. */
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, NULL, 1, &count, &truncated, &error),
                 ESPALIER_INVALID_ARGUMENT);
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, NULL, 0, &count, &truncated, &error),
                 ESPALIER_INVALID_ARGUMENT);
    CHECK(count == 3);
    /* Empty, with and without a pointer; not UTF-8; a zero inside. */
    memset(&text, 0, sizeof(text));
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, types, most_tokens, &count, &truncated, &error),
                 ESPALIER_OK);
    CHECK(count == 2 && truncated == 0);
    text.text = "\xff\xc0\x80\0\xed\xa0\x80";
    text.bytes = 7;
    CHECK_STATUS(espalier_tokenize(context, &text, 0, ids, types, most_tokens, &count, &truncated, &error),
                 ESPALIER_OK);
    CHECK(count >= 2);
}

static void test_texts(void) {
    float vector[hidden], logits[2], value;
    espalier_classification result;
    espalier_text text = text_of("the leaf");
    int truncated = -1, i;
    CHECK_STATUS(espalier_embed_text(context, &text, vector, &truncated, &error), ESPALIER_OK);
    CHECK(truncated == 0);
    for (i = 0; i < hidden; ++i)
        CHECK(isfinite(vector[i]));
    CHECK_STATUS(espalier_classify_text(context, &text, 0, &result, logits, &error), ESPALIER_OK);
    CHECK(result.label == (logits[1] > logits[0] ? 1u : 0u) && result.truncated == 0);
    CHECK(strcmp(result.name, espalier_model_label(model, 0, result.label)) == 0);
    CHECK(fabs(result.probability - 1 / (1 + exp(-fabs((double)logits[1] - logits[0])))) < 1e-6);
    CHECK_STATUS(espalier_classify_text(context, &text, 1, &result, &value, &error), ESPALIER_OK);
    CHECK(result.label == 0 && result.probability == 1.0f && result.name == NULL && isfinite(value));
    CHECK_STATUS(espalier_classify_text(context, &text, 0, &result, NULL, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_classify_text(context, &text, 2, &result, NULL, &error), ESPALIER_INVALID_ARGUMENT);
    text = text_of("a b c d a b c d a b c d a b c d a b c d");
    CHECK_STATUS(espalier_classify_text(context, &text, 0, &result, NULL, &error), ESPALIER_OK);
    CHECK(result.truncated == 1);
    text.text = NULL;
    CHECK_STATUS(espalier_classify_text(context, &text, 0, &result, NULL, &error), ESPALIER_INVALID_ARGUMENT);
    CHECK_STATUS(espalier_embed_text(context, &text, vector, NULL, &error), ESPALIER_INVALID_ARGUMENT);
}

static espalier_batch batch_of(const int32_t* ids, const uint8_t* types, const uint32_t* offsets,
                               uint32_t sequences) {
    espalier_batch batch;
    batch.ids = ids;
    batch.types = types;
    batch.offsets = offsets;
    batch.sequences = sequences;
    return batch;
}

static void test_batches(void) {
    const int32_t ids[] = {2, 5, 6, 3, 2, 7, 3};
    const uint8_t types[] = {0, 0, 1, 1, 0, 0, 1};
    const uint32_t offsets[] = {0, 4, 7}, alone[] = {0, 3};
    float all[7 * hidden], one[3 * hidden], vectors[2 * hidden], logits[4];
    espalier_batch batch = batch_of(ids, types, offsets, 2);
    int i;
    CHECK_STATUS(espalier_encode(context, &batch, all, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_embed(context, &batch, vectors, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_score(context, &batch, 0, logits, &error), ESPALIER_OK);
    for (i = 0; i < hidden; ++i) {
        /* Mean pooling, as the model says. */
        const float mean = (all[4 * hidden + i] + all[5 * hidden + i] + all[6 * hidden + i]) / 3;
        CHECK(fabs(mean - vectors[hidden + i]) < 1e-5);
    }
    batch = batch_of(ids + 4, types + 4, alone, 1);
    CHECK_STATUS(espalier_encode(context, &batch, one, &error), ESPALIER_OK);
    for (i = 0; i < 3 * hidden; ++i)
        CHECK(fabs(one[i] - all[4 * hidden + i]) < 1e-5);
    batch = batch_of(ids, NULL, offsets, 2);
    CHECK_STATUS(espalier_encode(context, &batch, all, &error), ESPALIER_OK);
}

/* A bad batch is refused, nothing is written, and the context works on. */
static void refuse(espalier_batch batch, espalier_status expected, int line) {
    float out[most_tokens * hidden];
    size_t i;
    int before = failures;
    for (i = 0; i < most_tokens * hidden; ++i)
        out[i] = -9;
    CHECK_STATUS(espalier_encode(context, &batch, out, &error), expected);
    CHECK_STATUS(espalier_embed(context, &batch, out, &error), expected);
    CHECK_STATUS(espalier_score(context, &batch, 0, out, &error), expected);
    for (i = 0; i < most_tokens * hidden; ++i)
        CHECK(out[i] == -9);
    if (failures > before) fprintf(stderr, "  called from line %d\n", line);
}

static void test_bad_batches(void) {
    int32_t ids[64];
    uint8_t types[64];
    const uint32_t good[] = {0, 4}, late[] = {1, 4}, none[] = {0, 0}, falling[] = {0, 5, 4},
                   empty[] = {0, 2, 2, 4};
    const uint32_t beyond[] = {0, 9, 4}, too_long[] = {0, 17}, huge[] = {0, UINT32_MAX};
    uint32_t many[most_tokens + 2];
    int i;
    for (i = 0; i < 64; ++i)
        ids[i] = 5;
    for (i = 0; i < most_tokens + 2; ++i)
        many[i] = (uint32_t)i;
    memset(types, 0, sizeof(types));
    refuse(batch_of(ids, NULL, late, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, none, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, good, 0), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, falling, 2), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, empty, 3), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, beyond, 2), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, too_long, 1), ESPALIER_TOO_LONG, __LINE__);
    refuse(batch_of(ids, NULL, huge, 1), ESPALIER_TOO_LONG, __LINE__);
    refuse(batch_of(ids, NULL, many, most_tokens + 1), ESPALIER_TOO_LONG, __LINE__);
    refuse(batch_of(NULL, NULL, good, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    refuse(batch_of(ids, NULL, NULL, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    for (i = 0; i < 2; ++i) {
        ids[3] = i == 0 ? -1 : 24;
        refuse(batch_of(ids, NULL, good, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    }
    ids[3] = INT32_MIN;
    refuse(batch_of(ids, NULL, good, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    ids[3] = 3;
    types[2] = 2;
    refuse(batch_of(ids, types, good, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
    types[2] = 255;
    refuse(batch_of(ids, types, good, 1), ESPALIER_INVALID_ARGUMENT, __LINE__);
}

static void test_routes(void) {
    const int32_t ids[] = {2, 5, 6, 3};
    const uint32_t offsets[] = {0, 4};
    const espalier_batch batch = batch_of(ids, NULL, offsets, 1);
    float out[4 * hidden];
    espalier_routes routes;
    uint32_t forest;
    size_t i;
    CHECK_STATUS(espalier_encode(context, &batch, out, &error), ESPALIER_OK);
    for (forest = 0; forest < 2; ++forest) {
        routes.struct_size = sizeof(routes);
        CHECK(espalier_get_routes(context, forest, &routes) == ESPALIER_OK);
        CHECK(routes.tokens == 4 && routes.trees == 2 && routes.leaves == (forest == 0 ? 4u : 2u));
        CHECK(routes.block == forest && routes.part == (forest == 0 ? 1u : 0u));
        for (i = 0; i < routes.tokens * routes.trees; ++i)
            CHECK(routes.leaf[i] < routes.leaves && routes.margin[i] >= 0);
    }
    CHECK(espalier_get_routes(context, 2, &routes) == ESPALIER_INVALID_ARGUMENT);
    CHECK(espalier_get_routes(NULL, 0, &routes) == ESPALIER_INVALID_ARGUMENT);
    CHECK(espalier_get_routes(context, 0, NULL) == ESPALIER_INVALID_ARGUMENT);
    routes.struct_size = sizeof(routes) + 1;
    CHECK(espalier_get_routes(context, 0, &routes) == ESPALIER_INVALID_ARGUMENT);
}

struct seen {
    uint32_t layers;
    float last[4 * hidden];
};

static void on_layer(void* user, uint32_t layer, const float* values, size_t tokens) {
    struct seen* seen = (struct seen*)user;
    CHECK(layer == seen->layers && tokens == 4);
    ++seen->layers;
    memcpy(seen->last, values, sizeof(seen->last));
}

static void test_on_layer(void) {
    const int32_t ids[] = {2, 5, 6, 3};
    const uint32_t offsets[] = {0, 4};
    const espalier_batch batch = batch_of(ids, NULL, offsets, 1);
    float out[4 * hidden];
    struct seen seen = {0, {0}};
    espalier_on_layer(context, on_layer, &seen);
    CHECK_STATUS(espalier_encode(context, &batch, out, &error), ESPALIER_OK);
    CHECK(seen.layers == 3 && memcmp(seen.last, out, sizeof(out)) == 0);
    espalier_on_layer(context, NULL, NULL);
    CHECK_STATUS(espalier_encode(context, &batch, out, &error), ESPALIER_OK);
    CHECK(seen.layers == 3);
    espalier_on_layer(NULL, on_layer, &seen);
}

static void test_bare_model(void) {
    size_t bytes;
    const void* data = bare_model_bytes(&bytes);
    espalier_model* bare = NULL;
    espalier_context* own = NULL;
    espalier_text text = text_of("a");
    espalier_classification result;
    float out[hidden];
    CHECK_STATUS(espalier_model_from_memory(data, bytes, NULL, &bare, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_context_create(bare, NULL, &own, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_embed_text(own, &text, out, NULL, &error), ESPALIER_UNSUPPORTED);
    CHECK_STATUS(espalier_classify_text(own, &text, 0, &result, NULL, &error), ESPALIER_UNSUPPORTED);
    espalier_context_destroy(own);
    espalier_model_close(bare);
}

int main(void) {
    size_t bytes;
    const void* data = tiny_model_bytes(&bytes);
    CHECK_STATUS(espalier_model_from_memory(data, bytes, NULL, &model, &error), ESPALIER_OK);
    CHECK_STATUS(espalier_context_create(model, NULL, &context, &error), ESPALIER_OK);
    if (model == NULL || context == NULL) return 1;
    test_version_and_names();
    test_info();
    test_tokenize();
    test_texts();
    test_batches();
    test_bad_batches();
    test_routes();
    test_on_layer();
    test_bare_model();
    test_texts(); /* after all the refusals the context works as before */
    espalier_context_destroy(context);
    espalier_model_close(model);
    return finish("api_c_test");
}
