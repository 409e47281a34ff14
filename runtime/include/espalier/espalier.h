/* Espalier: transformers whose feed-forward layers are trees. C API, C99.
 *
 * Objects. A model is read from a file or from memory and never changes afterwards: any number of threads may
 * use one model at the same time. A context holds the working memory for one call at a time: one context a
 * thread. Close contexts before their model.
 *
 * Errors. Every function that can fail returns an espalier_status and, where the caller passes an
 * espalier_error, a message of one line: what, where, expected, found. The library never prints, aborts,
 * exits or throws. On failure outputs are untouched unless said otherwise.
 *
 * Structs that the caller fills start with struct_size: set it with the ..._init function, which also sets
 * every default. That is how the structs can grow without breaking callers.
 *
 * Strings are UTF-8 with a length, and need no terminating zero; ill-formed UTF-8 is read as U+FFFD.
 *
 * Sizes are in bytes unless the name says tokens, sequences or floats. Matrices are row-major float32.
 */
#ifndef ESPALIER_H
#define ESPALIER_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(ESPALIER_SHARED)
#define ESPALIER_API __declspec(dllimport)
#elif defined(__GNUC__)
#define ESPALIER_API __attribute__((visibility("default")))
#else
#define ESPALIER_API
#endif

#define ESPALIER_VERSION_MAJOR 0
#define ESPALIER_VERSION_MINOR 1
#define ESPALIER_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

typedef enum espalier_status {
    ESPALIER_OK = 0,
    ESPALIER_INVALID_ARGUMENT = 1, /* the caller's mistake: a null pointer, a size out of range */
    ESPALIER_IO = 2,               /* the operating system refused to open, map or read */
    ESPALIER_BAD_MODEL = 3,        /* the bytes are no valid model */
    ESPALIER_UNSUPPORTED = 4,      /* valid, but not in this version, build or machine */
    ESPALIER_OUT_OF_MEMORY = 5,
    ESPALIER_CANCELLED = 6,
    ESPALIER_TOO_LONG = 7, /* more tokens than the context or the model can take */
    ESPALIER_INTERNAL = 8  /* a defect: please report it with the message */
} espalier_status;

typedef struct espalier_error {
    espalier_status status;
    char message[508]; /* zero-terminated, one line */
} espalier_error;

typedef struct espalier_model espalier_model;
typedef struct espalier_context espalier_context;

/* "0.1.0" */
ESPALIER_API const char* espalier_version(void);
/* A constant name such as "bad_model". */
ESPALIER_API const char* espalier_status_name(espalier_status status);

/* ---- models ---- */

/* Where weights, tables, working memory and scratch come from. Bookkeeping that does not grow with the
 * model's weights or the text (handles, names, lists of layers; oneDNN's own) uses the C++ heap. The hooks
 * may be called from any thread. `alignment` is a power of two of at most 64. allocate returns null when
 * there is no memory. */
typedef struct espalier_allocator {
    void* (*allocate)(void* user, size_t bytes, size_t alignment);
    void (*release)(void* user, void* pointer, size_t bytes, size_t alignment);
    void* user;
} espalier_allocator;

typedef enum espalier_log_level { ESPALIER_LOG_INFO = 1, ESPALIER_LOG_WARNING = 2 } espalier_log_level;

typedef struct espalier_logger {
    void (*log)(void* user, espalier_log_level level, const char* message);
    void* user;
} espalier_logger;

typedef struct espalier_model_options {
    size_t struct_size;
    const char* isa; /* "scalar", "avx2", "avx512", "neon"; null: ESPALIER_ISA, else the best there is */
    const char*
        backend;  /* "onednn", "native"; null: oneDNN where it is compiled in and has kernels for isa */
    int use_mmap; /* 1; 0: read the file into memory */
    int verify;   /* 0; 1: check the hash of the payload too (reads the whole file) */
    espalier_allocator allocator; /* all null: the C library's */
    espalier_logger logger;       /* null: none */
    /* Weights that are prepared for the kernels lie in huge pages where the system grants them (Linux:
     * transparent_hugepage madvise or always), unless an allocator is given. 0; 1: the file too is read into
     * them, not mapped: faster where trees that are used as they are stored (neuron trees) are larger than
     * the caches, for a slower start and memory of the model's own. Not beside an allocator. From memory: not
     * the caller's bytes. */
    int huge_pages;
    /* Of the arithmetic in projections and feed-forward parts: "f32", "bf16", "int8"; null: as the weights
     * are stored (f16: f32). Routing sums, norms, softmax, heads and embeddings are float32 in each. */
    const char* precision;
} espalier_model_options;

ESPALIER_API void espalier_model_options_init(espalier_model_options* options);

/* options and error may be null. */
ESPALIER_API espalier_status espalier_model_open(const char* path, const espalier_model_options* options,
                                                 espalier_model** model, espalier_error* error);
/* `data` starts at a multiple of 64 and stays valid and unchanged until the model is closed. */
ESPALIER_API espalier_status espalier_model_from_memory(const void* data, size_t bytes,
                                                        const espalier_model_options* options,
                                                        espalier_model** model, espalier_error* error);
ESPALIER_API void espalier_model_close(espalier_model* model); /* null is fine */

typedef struct espalier_model_info {
    size_t struct_size;
    uint32_t hidden; /* width of hidden states and embeddings */
    uint32_t blocks;
    uint32_t vocabulary;
    uint32_t max_tokens; /* of one sequence, special tokens included */
    uint32_t heads;      /* classifiers and regressions by name */
    uint32_t forests;    /* tree parts in all blocks: what routes are reported for */
    uint64_t stored_neurons,
        active_neurons; /* of the feed-forward parts of all blocks; active: computed for one token */
    uint64_t parameters;
    uint64_t file_bytes, prepared_bytes; /* prepared: memory that the model holds beside the file */
    const char* isa;                     /* the kernels that run */
    const char* backend;
    const char* precision; /* of the arithmetic, as in the options */
} espalier_model_info;

/* Set info->struct_size first. Strings live as long as the model. */
ESPALIER_API espalier_status espalier_model_get_info(const espalier_model* model, espalier_model_info* info);

typedef struct espalier_head_info {
    size_t struct_size;
    const char* name; /* zero-terminated copies that live as long as the model */
    uint32_t outputs;
    uint32_t is_regression;
    uint32_t labels; /* 0 or outputs */
} espalier_head_info;

ESPALIER_API espalier_status espalier_model_get_head(const espalier_model* model, uint32_t head,
                                                     espalier_head_info* info);
/* Null where there is no such label. */
ESPALIER_API const char* espalier_model_label(const espalier_model* model, uint32_t head, uint32_t label);

/* ---- tokens ---- */

typedef struct espalier_text {
    const char* text;
    size_t bytes;
    const char* pair; /* the second text of a pair, or null */
    size_t pair_bytes;
} espalier_text;

enum { ESPALIER_PLAIN_SPECIAL_TOKENS = 1 }; /* "[SEP]" in a text is five characters, not the special token */

/* Writes the ids of a text or pair with its special tokens, and the types (0, or 1 for the second text; may
 * be null), at most `capacity` of them; *count is how many. A text longer than the model's limit (or than
 * capacity) is truncated, the longer text of a pair first; *truncated (may be null) says so. Entries from
 * *count to capacity may be overwritten. */
ESPALIER_API espalier_status espalier_tokenize(espalier_context* context, const espalier_text* text,
                                               uint32_t flags, int32_t* ids, uint8_t* types, size_t capacity,
                                               size_t* count, int* truncated, espalier_error* error);

/* ---- contexts ---- */

typedef struct espalier_context_options {
    size_t struct_size;
    int threads;            /* 1; at most the cores the process may run on are of use */
    uint32_t max_tokens;    /* of one call, all sequences together; 0: the model's limit for one sequence */
    uint32_t max_sequences; /* of one call; 0: 64, or max_tokens if that is less */
    void* arena;            /* the caller's memory of arena_bytes, at a multiple of 64; null: allocated */
    size_t arena_bytes;
    const int* cancel; /* if not null: a call stops soon after this becomes non-zero (written atomically) */
    /* Where blocks run: "cpu" (also null), "cuda" or "cuda:N", the GPU of that number. Encoders in f32, bf16
     * or 8 bits, decoders in f32 or bf16 (ESPALIER_UNSUPPORTED for what does not run there, and where build,
     * driver or GPU are missing); the contexts of a model on a GPU share one copy of its weights there, and
     * activations, a decoder's keys and values among them, stay there. Heads, the choice of a next token, and
     * texts are the CPU's. Read when the context is made. */
    const char* device;
} espalier_context_options;

ESPALIER_API void espalier_context_options_init(espalier_context_options* options);
/* The arena's size for these options: all working memory of the context's own code. */
ESPALIER_API espalier_status espalier_context_bytes(const espalier_model* model,
                                                    const espalier_context_options* options, size_t* bytes,
                                                    espalier_error* error);
ESPALIER_API espalier_status espalier_context_create(const espalier_model* model,
                                                     const espalier_context_options* options,
                                                     espalier_context** context, espalier_error* error);
ESPALIER_API void espalier_context_destroy(espalier_context* context); /* null is fine */

/* ---- running ---- */

/* Sequences packed end to end, no padding: sequence s is ids[offsets[s]] .. ids[offsets[s + 1] - 1]. */
typedef struct espalier_batch {
    const int32_t* ids;
    const uint8_t* types;    /* as long as ids; null: all 0 */
    const uint32_t* offsets; /* sequences + 1 of them, the first 0, rising: no sequence is empty */
    uint32_t sequences;
} espalier_batch;

/* Last hidden states: [tokens, hidden]. */
ESPALIER_API espalier_status espalier_encode(espalier_context* context, const espalier_batch* batch,
                                             float* hidden, espalier_error* error);
/* Pooled vectors: [sequences, hidden], of length 1 where the model says so. */
ESPALIER_API espalier_status espalier_embed(espalier_context* context, const espalier_batch* batch,
                                            float* vectors, espalier_error* error);
/* A head's outputs: [sequences, outputs]; logits, or the value of a regression. */
ESPALIER_API espalier_status espalier_score(espalier_context* context, const espalier_batch* batch,
                                            uint32_t head, float* logits, espalier_error* error);

/* The same from text, one at a time. Truncation is reported where `truncated` is not null. */
ESPALIER_API espalier_status espalier_embed_text(espalier_context* context, const espalier_text* text,
                                                 float* vector, int* truncated, espalier_error* error);

typedef struct espalier_classification {
    uint32_t label;    /* index of the largest logit */
    float probability; /* its softmax; 1 for a regression */
    const char* name;  /* the label's name, or null; lives as long as the model */
    int truncated;
} espalier_classification;

/* logits may be null, else [outputs]. */
ESPALIER_API espalier_status espalier_classify_text(espalier_context* context, const espalier_text* text,
                                                    uint32_t head, espalier_classification* result,
                                                    float* logits, espalier_error* error);

/* ---- decoders ---- */

/* What a decoder can do; espalier_encode, _embed, _score and what builds on them are for encoders, and each
 * kind of model refuses the other's calls with ESPALIER_UNSUPPORTED. A context's max_tokens is the window: as
 * many tokens as prompt and continuation have together; 0: the model's positions, 4096 at most. The cache of
 * keys and values is a part of the arena, for the blocks that have attention. */

typedef struct espalier_generate_options {
    size_t struct_size;
    uint32_t max_tokens; /* new tokens; 0: until the end token comes or the window is full */
    float temperature;   /* 0: the likeliest token each time, the first of equals */
    uint32_t top_k;      /* draw from the k likeliest tokens; 0: from all */
    float top_p;         /* 1; draw from the fewest, likeliest first, that have this probability together */
    uint64_t seed;       /* 0; the same seed draws the same tokens */
} espalier_generate_options;

ESPALIER_API void espalier_generate_options_init(espalier_generate_options* options);

/* Called on the calling thread with each new token and the bytes of its text, which may be none, or part of a
 * character. Non-zero: stop. The bytes are valid during the call; the context must not be used in it. */
typedef int (*espalier_token_callback)(void* user, int32_t id, const char* text, size_t bytes);

typedef enum espalier_stop {
    ESPALIER_STOP_END_TOKEN = 1, /* the model ended its text; the end token is no part of it */
    ESPALIER_STOP_MAX_TOKENS = 2,
    ESPALIER_STOP_WINDOW_FULL = 3,
    ESPALIER_STOP_CALLBACK = 4
} espalier_stop;

typedef struct espalier_generation {
    size_t struct_size;
    uint32_t prompt_tokens; /* the token that begins a text included */
    uint32_t tokens;        /* new ones that the callback got */
    espalier_stop stop;
} espalier_generation;

/* Continues a prompt (text->pair must be null). options, callback and result may be null. A prompt that fills
 * the window is ESPALIER_TOO_LONG. */
ESPALIER_API espalier_status espalier_generate(espalier_context* context, const espalier_text* prompt,
                                               const espalier_generate_options* options,
                                               espalier_token_callback callback, void* user,
                                               espalier_generation* result, espalier_error* error);

typedef struct espalier_perplexity_result {
    size_t struct_size;
    double perplexity;
    uint64_t tokens;  /* that were foreseen */
    uint64_t windows; /* that do not overlap: the begin token and the next tokens of the text, full ones only
                         save where there is but one */
    uint32_t window;  /* tokens of each */
} espalier_perplexity_result;

/* exp of the mean of -log p(token | those before it in its window). Set result->struct_size first. */
ESPALIER_API espalier_status espalier_perplexity(espalier_context* context, const char* text, size_t bytes,
                                                 espalier_perplexity_result* result, espalier_error* error);

/* ---- looking inside ---- */

typedef struct espalier_routes {
    size_t struct_size;
    uint32_t block, part; /* where the forest stands */
    uint32_t trees;
    uint32_t leaves;      /* of one tree */
    size_t tokens;        /* of the last call */
    const uint32_t* leaf; /* [tokens, trees]: which leaf (last node) each token reached */
    const float* margin;  /* [tokens, trees]: the smallest |test value| of the walk */
} espalier_routes;

/* Where the tokens of the last successful call went in forest `forest` (0 .. info.forests - 1). Valid until
 * the next call on the context. Set routes->struct_size first. */
ESPALIER_API espalier_status espalier_get_routes(const espalier_context* context, uint32_t forest,
                                                 espalier_routes* routes);

/* Called after the embedding (layer 0) and after each block (1 ..), on the calling thread, with the hidden
 * states [tokens, hidden]. Null: no more calls. */
typedef void (*espalier_layer_callback)(void* user, uint32_t layer, const float* hidden, size_t tokens);
ESPALIER_API void espalier_on_layer(espalier_context* context, espalier_layer_callback callback, void* user);

#ifdef __cplusplus
}
#endif

#endif
