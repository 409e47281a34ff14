/* consumer_core MODEL DECODER: what is left without tokenizers, decoders and threads, with nothing taken for
 * granted: the model from memory of the program's own, all working memory from the program, token ids in, a
 * classification out. A decoder is refused.
 */
#include <espalier/espalier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void* aligned(size_t bytes, void** block) {
    *block = malloc(bytes + 63);
    return *block == NULL ? NULL : (void*)(((uintptr_t)*block + 63) / 64 * 64);
}

static void* read_model(const char* path, size_t* bytes, void** block) {
    FILE* file = fopen(path, "rb");
    void* data = NULL;
    long size = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) size = ftell(file);
    if (size > 0 && fseek(file, 0, SEEK_SET) == 0) data = aligned((size_t)size, block);
    if (data != NULL && fread(data, 1, (size_t)size, file) != (size_t)size) data = NULL;
    if (file != NULL) fclose(file);
    *bytes = size > 0 ? (size_t)size : 0;
    return data;
}

/* Whether a decoder's file has a status and one line that says why. */
static int decoder_is_refused(const char* path) {
    espalier_error error = {ESPALIER_OK, ""};
    espalier_model* model = NULL;
    if (espalier_model_open(path, NULL, &model, &error) == ESPALIER_UNSUPPORTED && model == NULL &&
        strstr(error.message, "found a decoder") != NULL && strchr(error.message, '\n') == NULL)
        return 1;
    fprintf(stderr, "expected %s to be refused as a decoder, found: %s\n", path, error.message);
    espalier_model_close(model);
    return 0;
}

int main(int argc, char** argv) {
    /* [CLS] not good at all [SEP] */
    static const int32_t ids[] = {101, 2025, 2204, 2012, 2035, 102};
    static const uint32_t offsets[] = {0, 6};
    const espalier_batch batch = {ids, NULL, offsets, 1};
    const espalier_text text = {"journey", 7, NULL, 0};
    espalier_context_options options;
    espalier_classification refused;
    espalier_model* model = NULL;
    espalier_context* context = NULL;
    espalier_error error = {ESPALIER_IO, "cannot read the model"};
    float logits[2];
    void *model_block = NULL, *arena_block = NULL;
    size_t bytes = 0;
    void* data = argc > 2 ? read_model(argv[1], &bytes, &model_block) : NULL;
    espalier_status status = ESPALIER_IO;
    espalier_context_options_init(&options);
    options.max_tokens = 6;
    options.max_sequences = 1;
    if (data != NULL) status = espalier_model_from_memory(data, bytes, NULL, &model, &error);
    if (status == ESPALIER_OK) status = espalier_context_bytes(model, &options, &options.arena_bytes, &error);
    if (status == ESPALIER_OK) {
        options.arena = aligned(options.arena_bytes, &arena_block);
        status = espalier_context_create(model, &options, &context, &error);
    }
    if (status == ESPALIER_OK) status = espalier_score(context, &batch, 0, logits, &error);
    if (status == ESPALIER_OK &&
        espalier_classify_text(context, &text, 0, &refused, NULL, &error) != ESPALIER_UNSUPPORTED) {
        fprintf(stderr, "expected text to be refused without tokenizers, found: %s\n", error.message);
        return 1;
    }
    if (status == ESPALIER_OK && !decoder_is_refused(argv[2])) return 1;
    if (status == ESPALIER_OK) printf("%s\n", espalier_model_label(model, 0, logits[1] > logits[0] ? 1 : 0));
    if (status != ESPALIER_OK) fprintf(stderr, "%s\n", error.message);
    espalier_context_destroy(context);
    espalier_model_close(model);
    free(arena_block);
    free(model_block);
    return status == ESPALIER_OK ? 0 : 1;
}
