// A model small enough for a test to look at every byte: hidden 8, two blocks with every kind of part, two
// heads, a WordPiece vocabulary, all four storage types. Made with model_format's writer alone.
#pragma once

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/float16.h"
#include "model_format/schema.h"
#include "model_format/writer.h"

namespace espalier::test {

inline const std::vector<std::string>& tiny_vocabulary() {
    static const std::vector<std::string> tokens{
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "tree", "leaf", "a", "b", "c", "d",
        "e",     "s",     "t",     "##a",   "##e",    "##s", "##t",  "##ed", ".", ",", "1", "\xc3\xa9"};
    return tokens;
}

inline PartSpec dense_part(uint32_t width) {
    PartSpec part;
    part.width = width;
    part.flags = part_flag::up_bias | part_flag::output_bias;
    return part;
}

inline PartSpec forest_part(PartKind kind, uint32_t trees, uint32_t depth, uint32_t leaf_width) {
    PartSpec part;
    part.kind = kind;
    part.flags = part_flag::up_bias | part_flag::output_bias;
    part.trees = trees;
    part.depth = depth;
    part.leaf_width = leaf_width;
    return part;
}

inline void add_block(ModelSpec& spec, uint32_t flags, const std::vector<PartSpec>& parts) {
    BlockSpec block;
    block.flags = flags;
    if (block.has(block_flag::attention)) {
        block.heads = 2;
        block.kv_heads = 2;
        block.head_dimension = spec.hidden / 2;
        block.attention_scale = 0.5F;
    }
    block.first_part = static_cast<uint32_t>(spec.parts.size());
    block.part_count = static_cast<uint32_t>(parts.size());
    spec.blocks.push_back(block);
    spec.parts.insert(spec.parts.end(), parts.begin(), parts.end());
}

inline void add_head(ModelSpec& spec, std::string_view name, HeadKind kind, uint32_t outputs,
                     const std::vector<std::string_view>& labels, uint32_t dense_width = 0) {
    HeadSpec head;
    head.name = name;
    head.kind = kind;
    head.flags = head_flag::output_bias | (dense_width > 0 ? head_flag::dense_bias : 0);
    head.activation = dense_width > 0 ? Activation::tanh : Activation::none;
    head.dense_width = dense_width;
    head.outputs = outputs;
    head.first_label = static_cast<uint32_t>(spec.labels.size());
    head.label_count = static_cast<uint32_t>(labels.size());
    spec.heads.push_back(head);
    spec.labels.insert(spec.labels.end(), labels.begin(), labels.end());
}

// An encoder without blocks and heads.
inline ModelSpec bare_spec() {
    ModelSpec spec;
    spec.hidden = 8;
    spec.vocabulary = static_cast<uint32_t>(tiny_vocabulary().size());
    spec.max_positions = 16;
    spec.token_types = 2;
    spec.norm_epsilon = 1e-6F;
    spec.flags = model_flag::embedding_norm;
    spec.pooling = Pooling::mean;
    spec.name = "tiny";
    spec.origin = "random numbers";
    spec.licence = "none";
    spec.producer = "a test";
    TokenizerSpec& t = spec.tokenizer;
    t.kind = TokenizerKind::wordpiece;
    t.flags = tokenizer_flag::clean_text | tokenizer_flag::split_cjk | tokenizer_flag::strip_accents |
              tokenizer_flag::lowercase;
    t.max_tokens = 16;
    t.pad = 0;
    t.unknown = 1;
    t.cls = 2;
    t.sep = 3;
    t.mask = 4;
    t.continuation = "##";
    return spec;
}

inline ModelSpec tiny_spec() {
    ModelSpec spec = bare_spec();
    const uint32_t attention = block_flag::attention | block_flag::qkv_bias | block_flag::output_bias;
    add_block(spec, attention, {dense_part(5), forest_part(PartKind::leaf_forest, 2, 2, 3)});
    add_block(spec, attention, {forest_part(PartKind::neuron_forest, 2, 1, 0)});
    add_head(spec, "sentiment", HeadKind::classifier, 2, {"negative", "positive"}, 8);
    add_head(spec, "score", HeadKind::regression, 1, {});
    return spec;
}

template <typename T>
std::vector<std::byte> bytes_of_values(const std::vector<T>& values) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

template <typename T>
TensorSource tensor_of(const std::string& name, TensorType type, std::vector<uint64_t> dimensions,
                       const std::vector<T>& values) {
    TensorSource source;
    source.name = name;
    source.type = type;
    source.dimensions = std::move(dimensions);
    source.data = [bytes = bytes_of_values(values)] { return bytes; };
    return source;
}

// Which type the next weight gets. Vectors (biases, norms) follow it too, save that they are never s8.
using TypeChoice = std::function<TensorType(const TensorNeed& need)>;

// One of each in turn.
inline TypeChoice all_types() {
    return [next = 0u](const TensorNeed&) mutable {
        constexpr TensorType types[] = {TensorType::s8, TensorType::f16, TensorType::bf16, TensorType::f32};
        return types[next++ % 4];
    };
}
inline TypeChoice only(TensorType type) {
    return [type](const TensorNeed&) { return type; };
}

inline void add_random_tensor(std::vector<TensorSource>& out, const TensorNeed& need, TensorType type,
                              std::mt19937_64& random) {
    std::vector<uint64_t> dimensions(need.dimensions.begin(), need.dimensions.begin() + need.rank);
    size_t elements = 1;
    for (const uint64_t dimension : dimensions)
        elements *= dimension;
    const bool norm = std::string_view(need.name).ends_with("norm.weight");
    std::uniform_real_distribution<float> uniform(norm ? 0.9F : -0.6F, norm ? 1.1F : 0.6F);
    std::vector<float> values(elements);
    for (float& value : values)
        value = uniform(random);
    std::vector<uint16_t> halves(elements);
    for (size_t i = 0; i < elements; ++i)
        halves[i] = type == TensorType::f16 ? half_from_float(values[i]) : bfloat_from_float(values[i]);
    if (type == TensorType::f32) {
        out.push_back(tensor_of(need.name.text, type, dimensions, values));
    } else if (type == TensorType::s8) {
        std::vector<int8_t> whole(elements);
        for (size_t i = 0; i < elements; ++i)
            whole[i] = static_cast<int8_t>(values[i] * 127);
        out.push_back(tensor_of(need.name.text, type, dimensions, whole));
        out.back().scales = TensorScales::per_row;
        const size_t rows = elements / dimensions.back();
        out.push_back(tensor_of(std::string(need.name.text) + ".scale", TensorType::f32, {rows},
                                std::vector<float>(rows, 1.0F / 127)));
    } else {
        out.push_back(tensor_of(need.name.text, type, dimensions, halves));
    }
}

inline void add_vocabulary(std::vector<TensorSource>& out, const std::vector<std::string>& tokens) {
    std::vector<uint32_t> offsets{0};
    std::string text;
    for (const std::string& token : tokens) {
        text += token;
        offsets.push_back(static_cast<uint32_t>(text.size()));
    }
    out.push_back(tensor_of("tokenizer.offsets", TensorType::u32, {offsets.size()}, offsets));
    out.push_back(tensor_of("tokenizer.bytes", TensorType::u8, {text.size()},
                            std::vector<char>(text.begin(), text.end())));
}

// Every tensor of the spec, random save for the vocabulary.
inline std::vector<TensorSource> random_tensors(const ModelSpec& spec, TypeChoice choose, uint64_t seed = 1) {
    std::vector<TensorSource> out;
    std::mt19937_64 random(seed);
    for (const TensorNeed& need : tensors_of(spec)) {
        if (need.role == TensorRole::vocabulary) continue;
        TensorType type = choose(need);
        if (need.role == TensorRole::vector && type == TensorType::s8) type = TensorType::f32;
        add_random_tensor(out, need, type, random);
    }
    if (spec.tokenizer.kind != TokenizerKind::none) add_vocabulary(out, tiny_vocabulary());
    // "##e" + "d"
    if (merges_pieces(spec.tokenizer.kind))
        out.push_back(
            tensor_of("tokenizer.merges", TensorType::u32, {1, 4}, std::vector<uint32_t>{16, 11, 19, 0}));
    return out;
}

// Every float32 matrix times `scale`.
inline void scale_matrices(std::vector<TensorSource>& tensors, float scale) {
    for (TensorSource& tensor : tensors) {
        if (tensor.type != TensorType::f32 || tensor.dimensions.size() < 2) continue;
        tensor.data = [inner = tensor.data, scale] {
            auto bytes = inner();
            auto* values = reinterpret_cast<float*>(bytes.data());
            for (size_t i = 0; i < bytes.size() / sizeof(float); ++i)
                values[i] *= scale;
            return bytes;
        };
    }
}

inline AlignedBytes tiny_model() {
    const ModelSpec spec = tiny_spec();
    return model_to_memory(spec, random_tensors(spec, all_types()));
}

}  // namespace espalier::test
