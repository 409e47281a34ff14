/* Checks for plain C: a failed one is printed and counted, and the program goes on. */
#ifndef ESPALIER_TESTS_API_CHECK_H
#define ESPALIER_TESTS_API_CHECK_H

#include <espalier/espalier.h>
#include <stdio.h>
#include <string.h>

static int failures = 0, checks = 0;

#define CHECK(condition)                                                            \
    do {                                                                            \
        ++checks;                                                                   \
        if (!(condition)) {                                                         \
            ++failures;                                                             \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                           \
    } while (0)

/* The call gives this status; a failure comes with one line of text, success with none. */
#define CHECK_STATUS(call, expected)                                                                      \
    do {                                                                                                  \
        espalier_status status_;                                                                          \
        memset(&error, 0x55, sizeof(error));                                                              \
        status_ = (call);                                                                                 \
        ++checks;                                                                                         \
        if (status_ != (expected) || error.status != status_ || !one_line(&error)) {                      \
            ++failures;                                                                                   \
            fprintf(stderr, "%s:%d: %s: expected %s, found %s (in the error: %s) \"%.500s\"\n", __FILE__, \
                    __LINE__, #call, espalier_status_name(expected), espalier_status_name(status_),       \
                    espalier_status_name(error.status), error.message);                                   \
        }                                                                                                 \
    } while (0)

static int one_line(const espalier_error* error) {
    const size_t length = strlen(error->message);
    if (error->status == ESPALIER_OK) return length == 0;
    return length > 0 && length < sizeof(error->message) && strchr(error->message, '\n') == NULL;
}

static espalier_text text_of(const char* text) {
    espalier_text out;
    out.text = text;
    out.bytes = strlen(text);
    out.pair = NULL;
    out.pair_bytes = 0;
    return out;
}

static int finish(const char* name) {
    printf("%s: %d checks, %d failed\n", name, checks, failures);
    return failures == 0 ? 0 : 1;
}

#endif
