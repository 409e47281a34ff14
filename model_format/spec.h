// What a model is, apart from its numbers: everything the answer depends on. The importers fill it, the
// writer stores it, the reader gives it back, the runtime's one block loop follows it.
//
// Enumerator values are part of the file format (layout.h): append, never renumber.
#pragma once

#include <array>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace espalier {

enum class Family : uint32_t { encoder = 1, decoder = 2 };
enum class Norm : uint32_t { layer_norm = 1, rms_norm = 2 };
// post: x = norm(x + f(x)), as BERT; pre: x = x + f(norm(x)).
enum class NormPlacement : uint32_t { post = 1, pre = 2 };
enum class Positions : uint32_t { none = 0, learned = 1, sinusoidal = 2, rotary = 3 };
// Which components rotate together: i with i + d/2 (Hugging Face), or 2i with 2i + 1 (llama2.c).
enum class RopePairing : uint32_t { halves = 0, neighbours = 1 };
enum class Pooling : uint32_t { none = 0, cls = 1, mean = 2, last = 3 };
enum class PartKind : uint32_t { dense = 1, leaf_forest = 2, neuron_forest = 3 };
// Which pre-activation of a gated neuron tree chooses the child.
enum class RoutesOn : uint32_t { up = 0, gate = 1 };
enum class HeadKind : uint32_t { classifier = 1, regression = 2 };
enum class TokenizerKind : uint32_t {
    none = 0,
    wordpiece = 1,
    byte_level_bpe = 2,
    byte_fallback_bpe = 3,
    unigram = 4
};

// row_major: the last dimension is contiguous, as the shape says.
// rows_interleaved: a forest's rows of several tensors side by side (in, out, bias of one neuron).
// transposed: the last two dimensions are swapped in memory.
// rotated: row-major, turned along the dimension that a product sums over (schema.h: Rotation) before it was
//          rounded to 8 bits; docs/format.md defines the rotation.
// packed: turned alike, then each of its matrices (the last two dimensions) in the panels that the kernels
// read;
//         layout_arguments: columns of a panel, values of a word. docs/format.md defines the panels.
enum class TensorLayout : uint32_t {
    row_major = 0,
    rows_interleaved = 1,
    transposed = 2,
    packed = 3,
    rotated = 4
};
// The only panels there are: of 64 columns, four 8-bit values of a column in a word.
inline constexpr uint32_t packed_columns = 64, packed_values = 4;
// A scaled tensor X has a companion X.scale in float32: one scale an index of all dimensions but the last
// (per_row), or one an index of the last dimension (per_column). value = stored * scale.
enum class TensorScales : uint32_t { none = 0, per_row = 1, per_column = 2 };

namespace model_flag {
inline constexpr uint32_t embedding_norm = 1;      // a norm after the sum of embeddings
inline constexpr uint32_t final_norm = 2;          // a norm after the last block
inline constexpr uint32_t normalise_output = 4;    // embeddings are scaled to length 1
inline constexpr uint32_t tied_output = 8;         // a decoder's output matrix is embeddings.word
inline constexpr uint32_t norm_without_bias = 16;  // LayerNorm with a weight only
inline constexpr uint32_t all = 31;
}  // namespace model_flag
namespace block_flag {
inline constexpr uint32_t attention = 1;
inline constexpr uint32_t qkv_bias = 2;
inline constexpr uint32_t output_bias = 4;
inline constexpr uint32_t causal = 8;
// Reads what the block before it read, and what both add to that is added up (full blocks in parallel, FFN
// Fusion, arXiv 2503.18908).
inline constexpr uint32_t parallel = 16;
inline constexpr uint32_t all = 31;
}  // namespace block_flag
namespace part_flag {
inline constexpr uint32_t gated = 1;        // act(x G) * (x U)
inline constexpr uint32_t up_bias = 2;      // a bias in front of the activation (neuron trees: of every node)
inline constexpr uint32_t output_bias = 4;  // dense, neuron: [hidden]; leaf: one row a leaf
inline constexpr uint32_t gate_bias = 8;    // gated dense parts alone: act(x G + b) * (x U)
inline constexpr uint32_t all = 15;
}  // namespace part_flag
namespace head_flag {
inline constexpr uint32_t dense_bias = 1;
inline constexpr uint32_t output_bias = 2;
inline constexpr uint32_t all = 3;
}  // namespace head_flag
namespace tokenizer_flag {
inline constexpr uint32_t clean_text = 1;
inline constexpr uint32_t split_cjk = 2;
inline constexpr uint32_t strip_accents = 4;
inline constexpr uint32_t lowercase = 8;
inline constexpr uint32_t add_begin = 16;
inline constexpr uint32_t add_end = 32;
inline constexpr uint32_t prefix_space = 64;       // BPE: a text that is not empty begins with a space
inline constexpr uint32_t underlined_space = 128;  // BPE: pieces hold U+2581 for a space
inline constexpr uint32_t named_specials = 256;    // BPE: the text of a special token, after a space where
                                                   // prefix_space is set, stands for it
// Byte-level BPE alone (runtime/tokenizer/words.h has the rules); without a rule a text is one word.
inline constexpr uint32_t gpt2_words = 512;
inline constexpr uint32_t llama3_words = 1024;
inline constexpr uint32_t single_digits = 2048;
inline constexpr uint32_t whole_words = 4096;  // a word that is a token is that token
// Both kinds of BPE: the file has tokenizer.added, tokens that are looked for before anything is merged.
inline constexpr uint32_t added_tokens = 8192;
// With byte fallback: no spaces at a text's ends, and one where there are several.
inline constexpr uint32_t single_spaces = 16384;
inline constexpr uint32_t all = 32767;
}  // namespace tokenizer_flag

struct TokenizerSpec {
    TokenizerKind kind = TokenizerKind::none;
    uint32_t flags = 0;
    uint32_t max_tokens = 0;  // a sequence's limit, special tokens included
    uint32_t max_word_characters = 100;
    int32_t unknown = -1, cls = -1, sep = -1, pad = -1, mask = -1, begin = -1, end = -1;
    std::string_view continuation;
};

// One term of FFN(x) = part_1(x) + part_2(x) + …
struct PartSpec {
    PartKind kind = PartKind::dense;
    Activation activation = Activation::gelu_erf;
    uint32_t flags = 0;
    TieRule tie = TieRule::zero_goes_left;
    uint32_t width = 0;       // dense: neurons
    uint32_t trees = 0;       // forests
    uint32_t depth = 0;       // leaf forest: levels of nodes, 2^depth leaves; neuron forest: depth + 1 levels
    uint32_t leaf_width = 0;  // leaf forest: neurons a leaf; 0: the leaf is its output bias alone
    RoutesOn routes_on = RoutesOn::up;

    bool has(uint32_t flag) const { return (flags & flag) != 0; }
    bool is_forest() const { return kind != PartKind::dense; }
    uint64_t leaves_per_tree() const { return uint64_t{1} << depth; }
    // Nodes that are tested: inner nodes of a leaf tree, every neuron of a neuron tree.
    uint64_t nodes_per_tree() const {
        return (uint64_t{1} << (kind == PartKind::neuron_forest ? depth + 1 : depth)) - 1;
    }
    // Rows with an activation that the file holds, and that one token computes (node tests not counted).
    uint64_t stored_neurons() const;
    uint64_t active_neurons() const;
    // Node tests one token makes that are no neurons: trees * depth for leaf forests.
    uint64_t node_tests() const { return kind == PartKind::leaf_forest ? uint64_t{trees} * depth : 0; }
    uint64_t stored_nodes() const { return kind == PartKind::leaf_forest ? trees * nodes_per_tree() : 0; }
};

struct BlockSpec {
    uint32_t flags = 0;
    uint32_t heads = 0, kv_heads = 0, head_dimension = 0;
    uint32_t first_part = 0, part_count = 0;
    float attention_scale = 0;
    uint32_t window = 0;

    bool has(uint32_t flag) const { return (flags & flag) != 0; }
    uint64_t query_width() const { return uint64_t{heads} * head_dimension; }
    uint64_t kv_width() const { return uint64_t{kv_heads} * head_dimension; }
    uint64_t qkv_width() const { return query_width() + 2 * kv_width(); }
};

struct HeadSpec {
    std::string_view name;
    HeadKind kind = HeadKind::classifier;
    uint32_t flags = 0;
    Activation activation = Activation::none;
    Pooling pooling = Pooling::mean;
    uint32_t dense_width = 0;
    uint32_t outputs = 0;
    uint32_t first_label = 0, label_count = 0;

    bool has(uint32_t flag) const { return (flags & flag) != 0; }
};

// Strings are views: into the mapped file when it was read, into the importer's storage when it is written.
struct ModelSpec {
    explicit ModelSpec(std::pmr::memory_resource* memory = std::pmr::get_default_resource())
        : blocks(memory), parts(memory), heads(memory), labels(memory) {}

    Family family = Family::encoder;
    uint32_t hidden = 0, vocabulary = 0, max_positions = 0, token_types = 0;
    Norm norm = Norm::layer_norm;
    NormPlacement norm_placement = NormPlacement::post;
    float norm_epsilon = 0;
    uint32_t flags = 0;
    Positions positions = Positions::learned;
    float position_scale = 1, embedding_scale = 1;
    float rope_theta = 0;
    uint32_t rope_dimensions = 0;
    RopePairing rope_pairing = RopePairing::halves;
    // All 0: none. A factor alone: positions are divided by it. All four, of which low and high are wave
    // lengths in parts of the original window: Llama 3.1's (runtime/rotary.h).
    std::array<float, 4> rope_scaling{};  // factor, low, high, original positions
    Pooling pooling = Pooling::none;
    float logit_scale = 1;
    TokenizerSpec tokenizer;
    std::string_view name, origin, licence, producer;
    std::pmr::vector<BlockSpec> blocks;
    std::pmr::vector<PartSpec> parts;
    std::pmr::vector<HeadSpec> heads;
    std::pmr::vector<std::string_view> labels;

    bool has(uint32_t flag) const { return (flags & flag) != 0; }
    std::span<const PartSpec> parts_of(const BlockSpec& block) const {
        return std::span(parts).subspan(block.first_part, block.part_count);
    }
    std::span<const std::string_view> labels_of(const HeadSpec& head) const {
        return std::span(labels).subspan(head.first_label, head.label_count);
    }
};

// Throws Error(bad_model) that names the first field that contradicts itself or exceeds a cap. `source`
// is the file's name for the message. Called by reader and writer, so neither can meet what the other
// refuses.
void check_spec(const ModelSpec& spec, const char* source);

// Whether a tokenizer merges pairs of pieces (tokenizer.merges).
inline bool merges_pieces(TokenizerKind kind) {
    return kind == TokenizerKind::byte_level_bpe || kind == TokenizerKind::byte_fallback_bpe;
}

const char* name_of(Family);
const char* name_of(Norm);
const char* name_of(NormPlacement);
const char* name_of(Positions);
const char* name_of(Pooling);
const char* name_of(PartKind);
const char* name_of(HeadKind);
const char* name_of(TokenizerKind);
const char* name_of(TensorLayout);

}  // namespace espalier
