#include "apps/importers/fast_feedforward.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

Activation leaf_activation(const Weights& weights, const ConvertOptions& options, const std::string& module) {
    for (const Activation a : {Activation::relu, Activation::gelu_erf, Activation::gelu_tanh,
                               Activation::silu, Activation::tanh, Activation::none}) {
        if (options.leaf_activation == name_of(a)) return a;
    }
    throw Error(
        Status::invalid_argument,
        "%s: %s: the checkpoint does not say the activation of its leaves (the package's default is relu): "
        "--leaf-activation names it",
        weights.path().c_str(), module.c_str());
}

bool keeps_leaf_bias(const Weights& weights, const ConvertOptions& options, const std::string& module) {
    if (options.leaf_bias.empty())
        throw Error(
            Status::invalid_argument,
            "%s: tensor %s.b2s: the package's training pass adds it and its evaluation pass leaves it out: "
            "--leaf-bias keep or drop",
            weights.path().c_str(), module.c_str());
    return options.leaf_bias == "keep";
}

// Of every group a matrix [rows, columns], to [columns, rows].
std::vector<float> transposed_groups(const std::vector<float>& values, size_t rows, size_t columns) {
    std::vector<float> out(values.size());
    for (size_t at = 0; at < values.size(); at += rows * columns) {
        for (size_t r = 0; r < rows; ++r) {
            for (size_t c = 0; c < columns; ++c)
                out[at + c * rows + r] = values[at + r * columns + c];
        }
    }
    return out;
}

}  // namespace

std::optional<std::string> find_fast_feedforward(const Weights& weights, const std::string& layer) {
    std::optional<std::string> found;
    for (const std::string& name : weights.names()) {
        if (!name.starts_with(layer) || !name.ends_with(".w1s")) continue;
        if (found)
            throw Error(Status::unsupported, "%s: %s: expected one FFF in the layer, found %s too",
                        weights.path().c_str(), found->c_str(), name.c_str());
        found = name.substr(0, name.size() - 4);
    }
    return found;
}

void add_fast_feedforward(BertReader& reader, const ConvertOptions& options, uint64_t hidden,
                          const std::string& module, const std::string& to) {
    Weights& weights = reader.weights();
    const auto& shape = weights.shape_of(module + ".w1s");
    if (shape.size() != 3 || !std::has_single_bit(shape[0]) || shape[0] > uint64_t{1} << layout::max_depth)
        throw Error(Status::bad_model,
                    "%s: tensor %s.w1s: expected shape [2^depth, %llu, leaf width], found %s",
                    weights.path().c_str(), module.c_str(), static_cast<unsigned long long>(hidden),
                    shape_text(shape).c_str());
    const uint64_t leaves = shape[0], width = shape[2], nodes = leaves - 1, h = hidden;
    PartSpec part;
    part.kind = PartKind::leaf_forest;
    part.trees = 1;
    part.depth = static_cast<uint32_t>(std::countr_zero(leaves));
    part.leaf_width = static_cast<uint32_t>(width);
    part.activation = leaf_activation(weights, options, module);
    part.flags = part_flag::up_bias;
    // sigmoid(z) >= 1/2 goes right: so does a z of zero.
    part.tie = options.zero_goes == "left" ? TieRule::zero_goes_left : TieRule::zero_goes_right;
    if (nodes > 0) {
        reader.add(to + "node.weight", module + ".node_weights", {nodes, h}, {1, nodes, h});
        reader.add_changed(to + "node.threshold", module + ".node_biases", {nodes, 1}, {1, nodes},
                           [](std::vector<float> values) {
                               std::transform(values.begin(), values.end(), values.begin(), std::negate());
                               return values;
                           });
    }
    reader.add_changed(to + "leaf.up.weight", module + ".w1s", {leaves, h, width}, {1, leaves, width, h},
                       [h, width](std::vector<float> values) { return transposed_groups(values, h, width); });
    reader.add(to + "leaf.up.bias", module + ".b1s", {leaves, width}, {1, leaves, width});
    reader.add(to + "leaf.down.weight", module + ".w2s", {leaves, width, h}, {1, leaves, width, h});
    if (keeps_leaf_bias(weights, options, module)) {
        part.flags |= part_flag::output_bias;
        reader.add(to + "leaf.bias", module + ".b2s", {leaves, h}, {1, leaves, h});
    } else {
        weights.check(module + ".b2s", std::vector<uint64_t>{leaves, h});
    }
    // Counters of use, and the depth as a tensor.
    for (const char* name : {".depth", ".node_usage", ".leaf_usage", ".node_weights", ".node_biases"})
        weights.set_aside(module + name);
    reader.add_part(part);
}

}  // namespace espalier
