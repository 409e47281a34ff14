/* One forest alone, on the caller's tensors: for those who have a network of their own and want its
 * feed-forward trees run by Espalier's kernels. C99. What espalier.h says of errors, strings and structs
 * holds here too.
 *
 * ESPALIER_LEAF_FOREST: fast feedforward networks (arXiv 2308.14711, section 3, inference). A tree walks
 * `depth` nodes and runs the one small layer of the leaf it ends in:
 * y = act(x up_leaf^T + up_bias_leaf) down_leaf + output_bias_leaf.
 *
 * ESPALIER_NEURON_FOREST: UltraFastBERT (arXiv 2311.10770, Algorithm 1). Every node of the path, of depth + 1
 * levels, is a neuron: y = the sum over the path of act(x . node_weight_n + node_bias_n) down_n, and
 * output_bias at the end.
 *
 * In both x . node_weight_n + node_bias_n > 0 goes right (n -> 2n + 2), else left (2n + 1); the trees'
 * outputs are added. All numbers are float32. A token's result does not depend on the other tokens of a call.
 */
#ifndef ESPALIER_FOREST_H
#define ESPALIER_FOREST_H

#include "espalier/espalier.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Read-only once made: any number of threads may run one forest at the same time. */
typedef struct espalier_forest espalier_forest;

typedef enum espalier_forest_kind {
    ESPALIER_LEAF_FOREST = 2, /* as model files number them */
    ESPALIER_NEURON_FOREST = 3
} espalier_forest_kind;

typedef struct espalier_forest_options {
    size_t struct_size;
    espalier_forest_kind kind;
    uint32_t hidden;        /* width of x and of y */
    uint32_t trees;         /* 1 */
    uint32_t depth;         /* leaf: levels of nodes, 2^depth leaves; neuron: depth + 1 levels */
    uint32_t leaf_width;    /* leaf: neurons of a leaf; 0: a leaf is its output bias alone; neuron: 0 */
    const char* activation; /* "none", "gelu_erf", "gelu_tanh", "relu", "silu", "tanh"; null: "gelu_erf" */
    int zero_goes_right;    /* 0; 1: a test value of exactly zero goes right */
    const char* isa;        /* as in espalier_model_options */
    espalier_allocator allocator; /* all null: the C library's */
} espalier_forest_options;

ESPALIER_API void espalier_forest_options_init(espalier_forest_options* options);

/* Row-major; nodes and leaves in heap order, nodes: 2^depth - 1 of a leaf tree, 2^(depth+1) - 1 of a neuron
 * tree. Null where there is none; node_weight and down only where they would have no rows. */
typedef struct espalier_forest_weights {
    size_t struct_size;
    const float* node_weight; /* [trees, nodes, hidden] */
    const float* node_bias;   /* [trees, nodes]; null: zeros */
    const float* up;          /* leaf: [trees, leaves, leaf_width, hidden]; neuron: null */
    const float* up_bias;     /* leaf: [trees, leaves, leaf_width]; null: zeros; neuron: null */
    const float* down;        /* leaf: [trees, leaves, leaf_width, hidden]; neuron: [trees, nodes, hidden] */
    const float* output_bias; /* leaf: [trees, leaves, hidden]; neuron: [hidden]; null: zeros */
} espalier_forest_weights;

/* node_weight, and all weights of a neuron forest, are used where they lie: valid and unchanged until the
 * forest is destroyed. Those of leaves are copied, into the order in which the kernels read them. */
ESPALIER_API espalier_status espalier_forest_create(const espalier_forest_options* options,
                                                    const espalier_forest_weights* weights,
                                                    espalier_forest** forest, espalier_error* error);
ESPALIER_API void espalier_forest_destroy(espalier_forest* forest); /* null is fine */
/* The kernels that run: "avx512". */
ESPALIER_API const char* espalier_forest_isa(const espalier_forest* forest);

typedef struct espalier_forest_call {
    size_t struct_size;
    const float* x; /* [tokens, hidden] */
    float* y;       /* [tokens, hidden], not x; written, or added to */
    size_t tokens;
    int add;     /* 0; 1: y += forest(x) */
    int threads; /* 1 */
    uint32_t*
        leaf; /* [tokens, trees]: the leaf each token reached (neuron: the last node's place in its level) */
    float* margin; /* [tokens, trees]: the smallest |test value| that chose a child; either may be null */
    void* scratch; /* scratch_bytes at a multiple of 64; null: allocated for the call */
    size_t scratch_bytes;
} espalier_forest_call;

ESPALIER_API void espalier_forest_call_init(espalier_forest_call* call);
/* What a call of so many tokens on so many threads takes as scratch. */
ESPALIER_API espalier_status espalier_forest_scratch_bytes(const espalier_forest* forest, size_t tokens,
                                                           int threads, size_t* bytes, espalier_error* error);
ESPALIER_API espalier_status espalier_forest_run(const espalier_forest* forest,
                                                 const espalier_forest_call* call, espalier_error* error);

#ifdef __cplusplus
}
#endif

#endif
