/* decoder_file PATH: writes the decoder of the API's tests. */
#include <stdio.h>

#include "tests/api/models.h"

int main(int argc, char** argv) {
    size_t bytes = 0;
    const void* model = decoder_model_bytes(&bytes);
    if (argc == 2 && write_bytes(argv[1], model, bytes)) return 0;
    fprintf(stderr, "decoder_file: expected a path that can be written\n");
    return 1;
}
