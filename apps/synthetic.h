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
};
// "minilm", "bert-base". Throws Error(invalid_argument | unsupported).
SyntheticShape shape_named(const std::string& name);
// The shape of an encoder that exists.
SyntheticShape shape_of(const ModelSpec& spec);

// A random encoder with these parts in every block, and tensors made from `seed` when they are asked for.
std::unique_ptr<Import> synthetic_import(const SyntheticShape& shape, const std::vector<PartSpec>& parts,
                                         uint64_t seed);

// The model in memory; thresholds are medians over random ids, layer by layer.
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
