/* Classifies one sentence. Usage: example_classify MODEL.esp "some text" */
#include <espalier/espalier.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
    espalier_model* model = NULL;
    espalier_context* context = NULL;
    espalier_error error = {ESPALIER_INVALID_ARGUMENT, "usage: example_classify MODEL.esp TEXT"};
    espalier_classification result;
    if (argc == 3 && espalier_model_open(argv[1], NULL, &model, &error) == ESPALIER_OK &&
        espalier_context_create(model, NULL, &context, &error) == ESPALIER_OK) {
        const espalier_text text = {argv[2], strlen(argv[2]), NULL, 0};
        if (espalier_classify_text(context, &text, 0, &result, NULL, &error) == ESPALIER_OK)
            printf("%s %.4f\n", result.name ? result.name : "?", result.probability);
    }
    if (error.status != ESPALIER_OK) fprintf(stderr, "%s\n", error.message);
    espalier_context_destroy(context);
    espalier_model_close(model);
    return error.status == ESPALIER_OK ? 0 : 1;
}
