#include "apps/ffn_spec.h"

#include <charconv>

#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> words{""};
    for (const char c : text) {
        if (c == separator) {
            words.emplace_back();
        } else {
            words.back() += c;
        }
    }
    return words;
}

uint32_t number(const std::string& part, const std::string& word, uint32_t low, uint32_t high) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < low || value > high)
        throw Error(Status::invalid_argument,
                    "feed-forward spec: %s: expected a number of %u to %u, found '%s'", part.c_str(), low,
                    high, word.c_str());
    return value;
}

PartSpec parse_part(const std::string& text) {
    const bool gated = text.starts_with("gated-");
    const auto words = split(gated ? text.substr(6) : text, ':');
    PartSpec part;
    part.flags = part_flag::up_bias | part_flag::output_bias;
    if (gated) {
        part.flags = part_flag::gated;
        part.activation = Activation::silu;
    }
    if (words[0] == "dense" && words.size() == 2) {
        part.kind = PartKind::dense;
        part.width = number(text, words[1], 1, layout::max_dimension);
    } else if (words[0] == "leaf" && words.size() == 4) {
        part.kind = PartKind::leaf_forest;
        part.leaf_width = number(text, words[3], 0, 1u << 20);
    } else if (words[0] == "neuron" && words.size() == 3) {
        part.kind = PartKind::neuron_forest;
        if (gated) part.routes_on = RoutesOn::gate;
    } else {
        throw Error(Status::invalid_argument,
                    "feed-forward spec: expected dense:W, leaf:K:D:L, neuron:K:D (each gated- or not) or "
                    "none, found '%s'",
                    text.c_str());
    }
    if (part.is_forest()) {
        if (part.kind == PartKind::leaf_forest && part.leaf_width == 0) part.flags |= part_flag::output_bias;
        part.trees = number(text, words[1], 1, 1u << 16);
        part.depth = number(text, words[2], 0, layout::max_depth);
    }
    return part;
}

}  // namespace

std::vector<PartSpec> parse_ffn(const std::string& text) {
    std::vector<PartSpec> parts;
    if (text == "none") return parts;
    for (const std::string& part : split(text, '+'))
        parts.push_back(parse_part(part));
    return parts;
}

std::string ffn_text(std::span<const PartSpec> parts) {
    std::string text;
    for (const PartSpec& part : parts) {
        if (!text.empty()) text += '+';
        if (part.has(part_flag::gated)) text += "gated-";
        const std::string trees = std::to_string(part.trees) + ":" + std::to_string(part.depth);
        switch (part.kind) {
            case PartKind::dense:
                text += "dense:" + std::to_string(part.width);
                break;
            case PartKind::leaf_forest:
                text += "leaf:" + trees + ":" + std::to_string(part.leaf_width);
                break;
            case PartKind::neuron_forest:
                text += "neuron:" + trees;
                break;
        }
    }
    return text.empty() ? "none" : text;
}

uint64_t rows_of(const PartSpec& part) {
    return part.has(part_flag::gated) ? 3 : 2;
}

uint64_t multiply_adds(std::span<const PartSpec> parts, uint64_t hidden) {
    uint64_t total = 0;
    for (const PartSpec& part : parts)
        total += (rows_of(part) * part.active_neurons() + part.node_tests()) * hidden;
    return total;
}

}  // namespace espalier
