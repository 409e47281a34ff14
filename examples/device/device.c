/* device MODEL.esp: classifies each line of stdin. A line out: label, probability, milliseconds, the text,
 * with tabs between. What a small app on a device needs: the C API, one model, one context, memory that is
 * known before. */
#include <errno.h>
#include <espalier/espalier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int classify_line(espalier_context* context, const char* line, size_t bytes) {
    espalier_error error;
    espalier_classification result;
    const espalier_text text = {line, bytes, NULL, 0};
    const double start = milliseconds();
    if (espalier_classify_text(context, &text, 0, &result, NULL, &error) != ESPALIER_OK) {
        fprintf(stderr, "device: %s\n", error.message);
        return 0;
    }
    printf("%s\t%.4f\t%.2f ms\t%.*s\n", result.name != NULL ? result.name : "?", (double)result.probability,
           milliseconds() - start, (int)bytes, line);
    return fflush(stdout) == 0;
}

/* The exit status: 0, or 1 where a line or stdin failed; other lines go on. */
static int classify_lines(espalier_context* context) {
    char* line = NULL;
    size_t capacity = 0;
    int status = 0;
    for (;;) {
        ssize_t length;
        errno = 0;
        length = getline(&line, &capacity, stdin);
        if (length < 0) break;
        if (length > 0 && line[length - 1] == '\n') --length;
        if (length > 0 && line[length - 1] == '\r') --length;
        if (!classify_line(context, line, (size_t)length)) status = 1;
    }
    if (ferror(stdin)) {
        fprintf(stderr, "device: stdin: %s\n", strerror(errno));
        status = 1;
    }
    free(line);
    return status;
}

int main(int argc, char** argv) {
    espalier_model* model = NULL;
    espalier_context* context = NULL;
    espalier_error error;
    espalier_model_info info;
    espalier_context_options options;
    size_t working = 0;
    int status = 1;
    if (argc != 2) {
        fprintf(stderr, "usage: device MODEL.esp < lines\n");
        return 2;
    }
    info.struct_size = sizeof(info);
    espalier_context_options_init(&options);
    options.max_tokens = 128; /* longer lines are cut; a context's memory grows with this */
    options.max_sequences = 1;
    if (espalier_model_open(argv[1], NULL, &model, &error) != ESPALIER_OK ||
        espalier_context_bytes(model, &options, &working, &error) != ESPALIER_OK ||
        espalier_context_create(model, &options, &context, &error) != ESPALIER_OK) {
        fprintf(stderr, "device: %s\n", error.message);
    } else if (espalier_model_get_info(model, &info) == ESPALIER_OK) {
        fprintf(stderr,
                "device: kernels %s, %s; file %.1f MB, prepared weights %.1f MB, working memory %.2f MB\n",
                info.isa, info.precision, (double)info.file_bytes * 1e-6, (double)info.prepared_bytes * 1e-6,
                (double)working * 1e-6);
        status = classify_lines(context);
    }
    espalier_context_destroy(context);
    espalier_model_close(model);
    return status;
}
