/* consumer_c MODEL: a C99 program on an installed library. */
#include <espalier/espalier.h>
#include <stdio.h>

int main(int argc, char** argv) {
    espalier_model* model = NULL;
    espalier_context* context = NULL;
    espalier_error error;
    espalier_classification result;
    const espalier_text text = {"a charming and often affecting journey", 38, NULL, 0};
    espalier_status status = espalier_model_open(argc > 1 ? argv[1] : NULL, NULL, &model, &error);
    if (status == ESPALIER_OK) status = espalier_context_create(model, NULL, &context, &error);
    if (status == ESPALIER_OK) status = espalier_classify_text(context, &text, 0, &result, NULL, &error);
    if (status == ESPALIER_OK)
        printf("%s %.4f\n", result.name ? result.name : "?", (double)result.probability);
    if (status != ESPALIER_OK) fprintf(stderr, "%s\n", error.message);
    espalier_context_destroy(context);
    espalier_model_close(model);
    return status == ESPALIER_OK ? 0 : 1;
}
