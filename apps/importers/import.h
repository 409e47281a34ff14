// What an importer makes of a checkpoint: a spec and its tensors in float32, ready to be stored in any
// precision. The spec's strings and the files that tensors come from live here.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apps/importers/weights.h"
#include "model_format/schema.h"
#include "model_format/spec.h"
#include "model_format/writer.h"

namespace espalier {

struct FloatTensor {
    std::string name;
    std::vector<uint64_t> dimensions;
    std::function<std::vector<float>()> values;  // called when its turn to be written comes
};

struct Import {
    ModelSpec spec;
    std::vector<FloatTensor> tensors;  // weights and vectors of the schema
    std::vector<TensorSource> ready;   // tensors that need no precision: the vocabulary
    std::vector<uint32_t> more_ends;   // tokens that end a text, beside spec.tokenizer.end
    std::vector<std::string> notes;    // what the user should know: defaults taken, tensors left out
    std::deque<std::string> strings;   // what the spec's views point into
    std::vector<std::shared_ptr<Weights>> files;

    std::string_view keep(std::string text) { return strings.emplace_back(std::move(text)); }
};

enum class Precision { f32, f16, bf16, int8 };
// Throws Error(invalid_argument).
Precision precision_named(const std::string& name);

// The tensors as they will stand in the file. f32: all float32. f16, bf16: weights in that type. int8:
// weights in s8 with a scale a row. In every precision these stay float32: vectors (norms, biases,
// thresholds) and the node rows of leaf forests, whose rounding would move tokens to other leaves; and in
// int8 these are f16: position and type embeddings, leaf output biases (a row is one value of each neuron,
// with no common scale).
std::vector<TensorSource> store(Import& import, Precision precision);

struct ConvertOptions {
    std::string base;         // --base
    std::string pooling;      // --pooling; empty: as the checkpoint says
    uint32_t max_tokens = 0;  // 0: the model's positions
    std::string tokenizer;    // --tokenizer: of a llama2.c checkpoint
    std::string zero_goes;    // --zero-goes: left, right; empty: as the published code of the layout has it
    std::string leaf_bias;    // --leaf-bias: keep, drop; of the fastfeedforward package's layers
    std::string leaf_activation;  // --leaf-activation; likewise
    std::string head_name;        // --head-name; empty: "classifier"
};

// The longest sequence: --max-tokens, or 0 for all positions. Throws where there are fewer.
uint32_t limited_tokens(const ModelSpec& spec, uint32_t max_tokens);

// Recognises the kind of checkpoint in `path` and reads it. Throws Error with one clear line.
std::unique_ptr<Import> import_checkpoint(const std::string& path, const ConvertOptions& options);

}  // namespace espalier
