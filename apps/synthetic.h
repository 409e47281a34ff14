// Models of a known shape with random weights, for measuring: real numbers, never zeros, and trees whose
// leaves are balanced as trained ones are.
#pragma once

#include <memory>
#include <string>

#include "apps/importers/import.h"
#include "model_format/writer.h"
#include "runtime/model.h"

namespace espalier {

struct SyntheticShape {
    uint32_t blocks = 0, hidden = 0, heads = 0, vocabulary = 0, max_positions = 0;
    uint32_t dense_width = 0;  // the usual feed-forward width
    uint32_t kv_heads = 0;     // decoders only; encoders have 0

    bool is_decoder() const { return kv_heads > 0; }
    // The usual feed-forward layer, as words (ffn_spec.h).
    std::string usual_ffn() const {
        return (is_decoder() ? "gated-dense:" : "dense:") + std::to_string(dense_width);
    }
};
// "minilm", "bert-base", or "llama-H-L": a decoder of L blocks, hidden H, heads of 128 of which four share
// keys and values, feed-forward 8/3 H rounded up to 256. Throws Error(invalid_argument).
SyntheticShape shape_named(const std::string& name);
// The shape of a model that exists.
SyntheticShape shape_of(const ModelSpec& spec);

// A random model with these parts in every block, and tensors made from `seed` when they are asked for.
std::unique_ptr<Import> synthetic_import(const SyntheticShape& shape, const std::vector<PartSpec>& parts,
                                         uint64_t seed);

// The model in memory; thresholds are medians over random ids, layer by layer; a decoder's over no more than
// it takes at once (128).
struct SyntheticModel {
    AlignedBytes bytes;
    std::unique_ptr<Model> model;
    double load_ms = 0;
};
SyntheticModel make_synthetic(const SyntheticShape& shape, const std::vector<PartSpec>& parts,
                              Precision precision, uint64_t seed, const ModelOptions& options);

// [CLS] random words [SEP].
void random_ids(const ModelSpec& spec, uint64_t& state, std::span<int32_t> ids);

}  // namespace espalier
