// Tiny checkpoints as a folder on disc: a Hugging Face BERT, and trees over it; with a safetensors writer.
#pragma once

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "tests/tiny_model.h"

namespace espalier::test {

using Json = nlohmann::ordered_json;

struct CheckpointTensor {
    std::vector<uint64_t> shape;
    std::vector<float> values;
};

// A folder's files before they are written, for a test to spoil.
struct Checkpoint {
    Json config;
    std::map<std::string, CheckpointTensor> tensors;
    std::vector<std::string> vocabulary;

    void add(const std::string& name, std::vector<uint64_t> shape) {
        size_t elements = 1;
        for (const uint64_t dimension : shape)
            elements *= dimension;
        const bool norm = name.ends_with("LayerNorm.weight");
        std::uniform_real_distribution<float> uniform(norm ? 0.8F : -0.7F, norm ? 1.2F : 0.7F);
        CheckpointTensor tensor{std::move(shape), std::vector<float>(elements)};
        for (float& value : tensor.values)
            value = uniform(random);
        tensors[name] = std::move(tensor);
    }
    void add_linear(const std::string& name, uint64_t outputs, uint64_t inputs) {
        add(name + ".weight", {outputs, inputs});
        add(name + ".bias", {outputs});
    }
    void add_norm(const std::string& name, uint64_t hidden) {
        add(name + ".weight", {hidden});
        add(name + ".bias", {hidden});
    }
    // Writes config.json, model.safetensors and vocab.txt (unless it is empty).
    void write(const std::string& folder) const;

    std::mt19937_64 random{5};
};

// Header length, header, data: github.com/huggingface/safetensors.
inline std::string safetensors_file(const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    std::string file(sizeof(length), 0);
    std::memcpy(file.data(), &length, sizeof(length));
    return file + header + data;
}

inline std::string safetensors_file(const std::map<std::string, CheckpointTensor>& tensors) {
    Json header{{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (const auto& [name, tensor] : tensors) {
        const size_t begin = data.size();
        data.append(reinterpret_cast<const char*>(tensor.values.data()),
                    tensor.values.size() * sizeof(float));
        header[name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    return safetensors_file(header.dump(), data);
}

inline void Checkpoint::write(const std::string& folder) const {
    write_file(folder + "/config.json", config.dump(1));
    write_file(folder + "/model.safetensors", safetensors_file(tensors));
    std::string text;
    for (const std::string& token : vocabulary)
        text += token + "\n";
    if (!vocabulary.empty()) write_file(folder + "/vocab.txt", text);
}

namespace tiny_bert {
inline constexpr uint64_t hidden = 16, heads = 4, layers = 2, width = 24, positions = 32;
}

inline void add_attention(Checkpoint& c, const std::string& layer) {
    using namespace tiny_bert;
    for (const char* name : {"query", "key", "value"})
        c.add_linear(layer + "attention.self." + name, hidden, hidden);
    c.add_linear(layer + "attention.output.dense", hidden, hidden);
    c.add_norm(layer + "attention.output.LayerNorm", hidden);
}

inline Checkpoint bert_checkpoint() {
    using namespace tiny_bert;
    Checkpoint c;
    c.vocabulary = tiny_vocabulary();
    c.config = {{"model_type", "bert"},
                {"hidden_size", hidden},
                {"num_attention_heads", heads},
                {"num_hidden_layers", layers},
                {"intermediate_size", width},
                {"hidden_act", "gelu"},
                {"vocab_size", c.vocabulary.size()},
                {"max_position_embeddings", positions},
                {"type_vocab_size", 2},
                {"layer_norm_eps", 1e-12}};
    c.add("embeddings.word_embeddings.weight", {c.vocabulary.size(), hidden});
    c.add("embeddings.position_embeddings.weight", {positions, hidden});
    c.add("embeddings.token_type_embeddings.weight", {2, hidden});
    c.add_norm("embeddings.LayerNorm", hidden);
    for (uint64_t layer = 0; layer < layers; ++layer) {
        const std::string name = "encoder.layer." + std::to_string(layer) + ".";
        add_attention(c, name);
        c.add_linear(name + "intermediate.dense", width, hidden);
        c.add_linear(name + "output.dense", hidden, width);
        c.add_norm(name + "output.LayerNorm", hidden);
    }
    return c;
}

// The base above with trees for its dense layers, and a head. Embeddings and vocabulary come from the base.
inline Checkpoint tree_checkpoint() {
    using namespace tiny_bert;
    Checkpoint c;
    c.config = bert_checkpoint().config;
    c.config["model_type"] = "tree";
    c.config["ffn"] = {{{{"kind", "dense"}, {"width", 6}},
                        {{"kind", "leaf_forest"}, {"trees", 2}, {"depth", 2}, {"leaf_width", 3}}},
                       {{{"kind", "neuron_forest"}, {"trees", 2}, {"depth", 1}}}};
    c.config["head"] = {{"kind", "classifier"}, {"labels", {"negative", "positive"}}};
    c.add_norm("embeddings.LayerNorm", hidden);
    for (uint64_t layer = 0; layer < layers; ++layer) {
        const std::string name = "encoder.layer." + std::to_string(layer) + ".";
        add_attention(c, name);
        c.add_norm(name + "output.LayerNorm", hidden);
    }
    c.add_linear("encoder.layer.0.ffn.0.up", 6, hidden);
    c.add_linear("encoder.layer.0.ffn.0.down", hidden, 6);
    const std::string leaf = "encoder.layer.0.ffn.1.", neuron = "encoder.layer.1.ffn.0.";
    c.add(leaf + "node.weight", {2 * 3, hidden});
    c.add(leaf + "node.threshold", {2 * 3});
    c.add(leaf + "leaf.up.weight", {2 * 4, 3, hidden});
    c.add(leaf + "leaf.up.bias", {2 * 4, 3});
    c.add(leaf + "leaf.down.weight", {2 * 4, 3, hidden});
    c.add(leaf + "leaf.down.bias", {2 * 4, hidden});
    c.add(neuron + "in.weight", {2 * 3, hidden});
    c.add(neuron + "in.bias", {2 * 3});
    c.add(neuron + "out.weight", {2 * 3, hidden});
    c.add(neuron + "out.bias", {hidden});
    c.add_linear("classifier.dense", hidden, hidden);
    c.add_linear("classifier.out", 2, hidden);
    return c;
}

}  // namespace espalier::test
