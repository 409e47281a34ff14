// config.json of a Hugging Face Llama folder.
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
    s.kv_heads = config.count_or("num_key_value_heads", 1, s.heads, s.heads);
    if (s.heads % s.kv_heads != 0)
        throw Error(Status::bad_model,
                    "%s: num_key_value_heads: expected a divisor of num_attention_heads %u, found %u",
                    config.name().c_str(), s.heads, s.kv_heads);
    if (!config.has("head_dim") && s.hidden % s.heads != 0)
        throw Error(Status::bad_model,
                    "%s: num_attention_heads: expected a divisor of hidden_size %u, found %u",
                    config.name().c_str(), s.hidden, s.heads);
    s.head_dimension = config.count_or("head_dim", 1, 65536, s.hidden / s.heads);
    if (s.head_dimension % 2 != 0)
        throw Error(Status::unsupported, "%s: head_dim: expected an even number, found %u",
                    config.name().c_str(), s.head_dimension);
}

}  // namespace

LlamaSizes llama_sizes(const JsonFile& config) {
    refuse_variants(config);
    constexpr uint32_t top = layout::max_dimension;
    LlamaSizes s;
    s.hidden = config.count("hidden_size", 1, top);
    s.inner = config.count("intermediate_size", 1, top);
    s.layers = config.count("num_hidden_layers", 1, layout::max_blocks);
    read_heads(config, s);
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
