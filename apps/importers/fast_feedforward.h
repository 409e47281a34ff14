// Layers of the fastfeedforward package (arXiv 2308.14711) in a BERT folder: a module FFF in place of a
// layer's intermediate.dense and output.dense, under any name in the layer.
#pragma once

#include <optional>

#include "apps/importers/bert.h"

namespace espalier {

// The names before ".node_weights" or, of a tree of one leaf, ".w1s" in this layer; none: no such module.
// Throws where there are several.
std::optional<std::string> find_fast_feedforward(const Weights& weights, const std::string& layer);

// Adds the module as the part of the current block. What its two forward passes disagree about is the
// options' to say.
void add_fast_feedforward(BertReader& reader, const ConvertOptions& options, uint64_t hidden,
                          const std::string& module, const std::string& to);

}  // namespace espalier
