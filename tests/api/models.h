/* Models for tests of the C API, for C and C++. Made by models.cpp. */
#ifndef ESPALIER_TESTS_API_MODELS_H
#define ESPALIER_TESTS_API_MODELS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* tests/tiny_model.h's: hidden 8, two forests, heads "sentiment" (negative, positive) and "score"
 * (regression), at most 16 tokens. At a multiple of 64; lives as long as the process. */
const void* tiny_model_bytes(size_t* bytes);
/* The same kinds of parts at a size where work is shared out: hidden 96, three blocks, 16 tokens. */
const void* medium_model_bytes(size_t* bytes);
/* Without tokenizer and heads: for ids only. */
const void* bare_model_bytes(size_t* bytes);
/* tests/tiny_decoder.h's: three blocks, one without attention; at most 300 tokens. */
const void* decoder_model_bytes(size_t* bytes);
/* 0 if the file could not be written. */
int write_bytes(const char* path, const void* data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
