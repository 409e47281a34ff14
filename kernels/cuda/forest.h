// Forests on a CUDA device: what kernels/forest says, with x, rows and results in the device's memory. All
// launches go to one stream and return at once.
//
// A call walks (walk.cu): leaf, margin and, in neuron forests, the activations on the path, by token. Few
// tokens: a block each, 15 nodes at a time, so that four levels cost one wait for memory. Many: a warp each.
// What the walk found is then added up: neuron forests row by row (neuron_forest.cu), leaf forests as small
// matrix products over tokens sorted by leaf (leaf_forest.cu: float32; leaf_products.cu: bfloat16).
#pragma once

#include "base/types.h"
#include "kernels/cuda/device.h"

namespace espalier::cuda {

// hidden is a multiple of 8; rows are float32, bfloat16 or 8-bit, row-major, 16-byte aligned. 8-bit rows are
// filled with zeros up to a multiple of 16, and so are widths of leaves; each has a scale.
inline constexpr size_t hidden_multiple = 8, byte_multiple = 16;
constexpr size_t byte_row(size_t values) {
    return (values + byte_multiple - 1) / byte_multiple * byte_multiple;
}

struct Trees {
    size_t hidden = 0, trees = 0;
    size_t levels =
        0;  // that a token is multiplied with: depth of a leaf forest, depth + 1 of a neuron forest
    bool neurons = false;  // every node is a neuron; else a test alone
    bool zero_goes_right = false;
    Activation activation = Activation::gelu_erf;
    TensorType rows = TensorType::f32;  // of nodes and of x
    const void* nodes = nullptr;        // [trees, 2^levels - 1, hidden]
    // Gated neurons, of float32 and bfloat16: as nodes. A neuron then gives act(gate) * node.
    const void* gates = nullptr;
    bool routes_on_gate = false;
    const float* offset = nullptr;  // [trees, 2^levels - 1] added to the product, or null
    const float* scale = nullptr;   // [trees, 2^levels - 1] of 8-bit nodes

    size_t nodes_per_tree() const { return (size_t{1} << levels) - 1; }
    // Choices that a walk makes.
    size_t depth() const { return neurons ? levels - 1 : levels; }
    size_t leaves() const { return size_t{1} << depth(); }
};

struct NeuronForest {
    Trees trees;
    const void* out = nullptr;         // [trees, nodes, hidden]
    const float* out_scale = nullptr;  // [trees, nodes] of 8-bit rows
    const float* out_bias = nullptr;   // [hidden], or null
};

struct LeafForest {
    Trees trees;  // their rows are float32
    size_t leaf_width = 0;
    TensorType rows = TensorType::f32;  // of leaves, and of x as they read it
    const void* up = nullptr;           // [trees, leaves, leaf_width, hidden]
    const float* up_bias = nullptr;     // [trees, leaves, leaf_width], or null
    const void* down = nullptr;         // [trees, leaves, leaf_width, hidden]
    const float* bias = nullptr;        // [trees, leaves, hidden], or null
    // Of 8 bits, where up_bias too is [.., leaf width]; down: [trees, leaves, hidden, leaf width].
    const float *up_scale = nullptr, *down_scale = nullptr;  // [trees, leaves, leaf width]
    bool rotated_activations = false;
    // Of bfloat16 and 8 bits: neurons beside the leaves, which every token runs with the first tree, as a
    // small dense part is.
    size_t shared_width = 0;
    const void *shared_up = nullptr, *shared_down = nullptr;  // [shared_width, hidden]; see below
    const float* shared_up_bias = nullptr;                    // [shared_width], or null
    const float* shared_bias = nullptr;                       // [hidden], or null
    // Of 8 bits, where the width is filled up as a leaf's, shared_down is [hidden, shared_width], and `bias`
    // of the first tree holds shared_bias.
    const float *shared_up_scale = nullptr, *shared_down_scale = nullptr;  // [shared_width]
    bool rotated_shared = false;
};

// Room for calls on at most `tokens` tokens, one at a time.
struct ForestScratch {
    float* activations = nullptr;  // [tokens, trees, levels] of neuron forests
    uint32_t* counts = nullptr;    // [count_words] see walk.cu
    uint32_t* order = nullptr;     // [order_words] tokens by group
    size_t tokens = 0;
    void* inner = nullptr;  // [tokens, inner_stride] of leaf forests, bfloat16, or float32 of 8-bit ones
    int8_t* inner_bytes = nullptr;  // [tokens, inner_stride], [tokens] of 8-bit ones
    float* inner_scale = nullptr;
};
// Floats of `activations` and words of `counts` that a forest needs.
size_t activation_floats(const Trees& trees, size_t tokens);
size_t count_words(const Trees& trees, size_t tokens);

size_t order_words(const Trees& trees, size_t tokens);
size_t inner_stride(const LeafForest& forest);

// Of one neuron tree: fewer tokens, and what two steps prepare costs more than it saves.
inline constexpr size_t fewest_for_two_steps = 1024;
// Floats that steps on tensor cores keep by token.
inline constexpr size_t tensor_step_floats = 24;

// Tokens of one leaf that one block multiplies.
inline constexpr uint32_t tile_tokens = 32, fewest_tile_tokens = 16;
uint32_t leaf_tile_tokens(const Trees& trees, TensorType rows, size_t tokens);
struct LeafTile {
    uint32_t leaf, first, count;  // order[first ..]
};
// How many tiles of `tile` tokens there can be.
size_t most_leaf_tiles(const Trees& trees, uint32_t tile, size_t tokens);

struct ForestCall {
    const void* x = nullptr;         // [tokens, hidden], as leaves or neurons read it
    const float* x_scale = nullptr;  // [tokens] of 8-bit x
    const float* walk_x = nullptr;   // [tokens, hidden] of leaf forests
    size_t tokens = 0;
    void* y = nullptr;  // [tokens, hidden] float32
    bool accumulate = false;
    // y is bfloat16 and not accumulated: of forests in bfloat16, a leaf forest of one tree.
    bool narrow = false;
    uint32_t* leaf = nullptr;  // [tokens, trees]
    float* margin = nullptr;   // [tokens, trees]
    ForestScratch scratch;
    const Device* device = nullptr;
    cudaStream_t stream = nullptr;
};

void run(const NeuronForest& forest, const ForestCall& call);
void run(const LeafForest& forest, const ForestCall& call);

// The parts of it.

// Fills leaf, margin and, of neuron forests, scratch.activations. x: of the type of the trees' rows.
void walk(const Trees& trees, const void* x, const ForestCall& call);
// scratch.order: tokens by the leaf that they reached in `tree`. The answer: most_leaf_tiles tiles of them,
// at most `tile` tokens each; those that there are none for have count 0.
const LeafTile* group_by_leaf(const Trees& trees, size_t tree, uint32_t tile, const ForestCall& call);
// What leaves give, in bfloat16 and in 8 bits; leaf is filled.
void run_bf16_leaves(const LeafForest& forest, const ForestCall& call);
void run_byte_leaves(const LeafForest& forest, const ForestCall& call);
// What neurons of 8 bits give; leaf and scratch.activations are filled.
void run_byte_neurons(const NeuronForest& forest, const ForestCall& call);
// One tree, many tokens, of a shape whose rows fit shared memory in two steps: everything, at once. False:
// not of that shape, nothing was done.
bool run_in_two_steps(const NeuronForest& forest, const ForestCall& call);

}  // namespace espalier::cuda
