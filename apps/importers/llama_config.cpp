// config.json of a Hugging Face Llama folder.
#include <cmath>

#include "apps/importers/llama.h"
#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

[[noreturn]] void refuse(const JsonFile& config, const char* key, const char* expected,
                         const std::string& found) {
    throw Error(Status::unsupported, "%s: %s: expected %s, found %s", config.name().c_str(), key, expected,
                found.c_str());
}

void refuse_variants(const JsonFile& config) {
    if (const std::string act = config.text("hidden_act"); act != "silu" && act != "swish")
        refuse(config, "hidden_act", "silu", act);
    if (config.has("sliding_window") && config.flag_or("use_sliding_window", true))
        refuse(config, "sliding_window", "null", config.value()["sliding_window"].dump());
    if (config.has("quantization_config"))
        refuse(config, "quantization_config", "weights in float32, float16 or bfloat16",
               "weights that are quantised");
    if (config.has("partial_rotary_factor") && config.number("partial_rotary_factor") != 1)
        refuse(config, "partial_rotary_factor", "1", config.value()["partial_rotary_factor"].dump());
}

float positive(const JsonFile& file, const char* key) {
    const float value = file.number(key);
    if (value <= 0)
        throw Error(Status::bad_model, "%s: %s: expected a number above 0, found %g", file.name().c_str(),
                    key, static_cast<double>(value));
    return value;
}

// Older files have rope_theta, and rope_scaling with a type; newer ones all of it in rope_parameters.
void read_rotary(const JsonFile& config, LlamaSizes& s) {
    const bool newer = config.has("rope_parameters");
    const char* key = newer ? "rope_parameters" : "rope_scaling";
    if (newer && config.has("rope_scaling"))
        refuse(config, "rope_scaling", "null beside rope_parameters", "both");
    const JsonFile rotary(config.name() + ": " + key,
                          config.has(key) ? config.value()[key] : nlohmann::json::object());
    if (!rotary.value().is_object())
        throw Error(Status::bad_model, "%s: expected an object, found %s", rotary.name().c_str(),
                    rotary.value().type_name());
    const JsonFile& theta = rotary.has("rope_theta") ? rotary : config;
    s.rope_theta = theta.has("rope_theta") ? positive(theta, "rope_theta") : 10000.0F;
    const std::string type = rotary.text_or("rope_type", rotary.text_or("type", "default").c_str());
    if (type == "default") return;
    if (type == "linear") {
        s.rope_scaling = {positive(rotary, "factor"), 0, 0, 0};
    } else if (type == "llama3") {
        s.rope_scaling = {
            positive(rotary, "factor"), positive(rotary, "low_freq_factor"),
            positive(rotary, "high_freq_factor"),
            static_cast<float>(rotary.count("original_max_position_embeddings", 1, layout::max_dimension))};
        if (s.rope_scaling[1] >= s.rope_scaling[2])
            throw Error(Status::bad_model,
                        "%s: low_freq_factor: expected less than high_freq_factor %g, found %g",
                        rotary.name().c_str(), static_cast<double>(s.rope_scaling[2]),
                        static_cast<double>(s.rope_scaling[1]));
    } else {
        refuse(rotary, "rope_type", "default, linear or llama3", type);
    }
}

void read_heads(const JsonFile& config, LlamaSizes& s) {
    s.heads = config.count("num_attention_heads", 1, 65536);
    if (!config.has("head_dim") && s.hidden % s.heads != 0)
        throw Error(Status::bad_model,
                    "%s: num_attention_heads: expected a divisor of hidden_size %u, found %u",
                    config.name().c_str(), s.hidden, s.heads);
    s.head_dimension = config.count_or("head_dim", 1, 65536, s.hidden / s.heads);
    if (s.head_dimension % 2 != 0)
        throw Error(Status::unsupported, "%s: head_dim: expected an even number, found %u",
                    config.name().c_str(), s.head_dimension);
}

uint32_t key_value_heads(const JsonFile& config, uint32_t heads) {
    const uint32_t kv_heads = config.count_or("num_key_value_heads", 1, heads, heads);
    if (heads % kv_heads != 0)
        throw Error(Status::bad_model,
                    "%s: num_key_value_heads: expected a divisor of num_attention_heads %u, found %u",
                    config.name().c_str(), heads, kv_heads);
    return kv_heads;
}

// What a block of block_configs has instead of the usual.
JsonFile member(const JsonFile& block, const char* key) {
    JsonFile found(block.name() + ": " + key, block.has(key) ? block.value()[key] : nlohmann::json::object());
    if (!found.value().is_object())
        throw Error(Status::bad_model, "%s: expected an object, found %s", found.name().c_str(),
                    found.value().type_name());
    if (found.flag_or("replace_with_linear", false)) refuse(found, "replace_with_linear", "false", "true");
    for (const char* variant : {"sparsify", "window_length", "num_sink_tokens"})
        if (found.has(variant)) refuse(found, variant, "null", found.value()[variant].dump());
    return found;
}

// Published as a multiple of the hidden size: two thirds of it, rounded down, then up to a multiple of 256.
uint32_t inner_of(const JsonFile& ffn, uint32_t hidden, uint32_t usual) {
    if (ffn.flag_or("no_op", false)) return 0;
    if (!ffn.has("ffn_mult")) return ffn.count_or("intermediate_size", 1, layout::max_dimension, usual);
    const double width = std::floor(2 * double{positive(ffn, "ffn_mult")} * hidden / 3);
    if (width < 1 || width > layout::max_dimension - 256)
        throw Error(Status::bad_model, "%s: ffn_mult: expected a width of 1 to %u, found %g",
                    ffn.name().c_str(), layout::max_dimension - 256, width);
    return (static_cast<uint32_t>(width) + 255) / 256 * 256;
}

uint32_t kv_heads_of(const JsonFile& attention, uint32_t heads, uint32_t usual) {
    if (attention.flag_or("no_op", false)) return 0;
    const uint32_t group = attention.count_or("n_heads_in_group", 1, heads, heads / usual);
    if (heads % group != 0)
        throw Error(Status::bad_model,
                    "%s: n_heads_in_group: expected a divisor of num_attention_heads %u, found %u",
                    attention.name().c_str(), heads, group);
    return heads / group;
}

// All alike, or as block_configs of NVIDIA's models (nemotron-nas: attention left out, feed-forward layers
// fused or left out) says of each.
void read_blocks(const JsonFile& config, LlamaSizes& s) {
    const uint32_t layers = config.count("num_hidden_layers", 1, layout::max_blocks);
    const uint32_t kv_heads = key_value_heads(config, s.heads);
    if (!config.has("block_configs")) {
        s.blocks.assign(layers, {kv_heads, config.count("intermediate_size", 1, layout::max_dimension)});
        return;
    }
    const auto& blocks = config.array("block_configs");
    if (blocks.size() != layers)
        throw Error(Status::bad_model, "%s: block_configs: expected one for each of the %u layers, found %zu",
                    config.name().c_str(), layers, blocks.size());
    const uint32_t usual = config.count_or("intermediate_size", 1, layout::max_dimension, 0);
    for (size_t i = 0; i < blocks.size(); ++i) {
        const JsonFile block(config.name() + ": block_configs[" + std::to_string(i) + "]", blocks[i]);
        const JsonFile ffn = member(block, "ffn");
        const uint32_t inner = inner_of(ffn, s.hidden, usual);
        if (inner == 0 && !ffn.flag_or("no_op", false)) refuse(ffn, "ffn_mult", "a number", "none");
        s.blocks.push_back({kv_heads_of(member(block, "attention"), s.heads, kv_heads), inner});
    }
}

}  // namespace

LlamaSizes llama_sizes(const JsonFile& config) {
    refuse_variants(config);
    constexpr uint32_t top = layout::max_dimension;
    LlamaSizes s;
    s.hidden = config.count("hidden_size", 1, top);
    read_heads(config, s);
    read_blocks(config, s);
    s.vocabulary = config.count("vocab_size", 1, top);
    s.positions = config.count("max_position_embeddings", 2, top);
    s.norm_epsilon = config.number("rms_norm_eps");
    read_rotary(config, s);
    s.tied = config.flag_or("tie_word_embeddings", false);
    s.qkv_bias = s.output_bias = config.flag_or("attention_bias", false);
    s.mlp_bias = config.flag_or("mlp_bias", false);
    return s;
}

}  // namespace espalier
