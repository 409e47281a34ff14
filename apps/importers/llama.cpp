#include "apps/importers/llama.h"

#include <algorithm>
#include <cmath>

#include "apps/importers/bert.h"
#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {

void describe_llama(ModelSpec& s, const LlamaSizes& sizes) {
    s.family = Family::decoder;
    s.hidden = sizes.hidden;
    s.vocabulary = sizes.vocabulary;
    s.max_positions = sizes.positions;
    s.norm = Norm::rms_norm;
    s.norm_placement = NormPlacement::pre;
    s.norm_epsilon = sizes.norm_epsilon;
    s.flags = model_flag::final_norm | (sizes.tied ? model_flag::tied_output : 0);
    s.positions = Positions::rotary;
    s.rope_theta = sizes.rope_theta;
    s.rope_dimensions = sizes.head_dimension;
    s.rope_scaling = sizes.rope_scaling;
    s.rope_pairing = sizes.pairing;
    PartSpec part;
    part.activation = Activation::silu;
    part.flags = part_flag::gated;
    if (sizes.mlp_bias) part.flags |= part_flag::up_bias | part_flag::gate_bias | part_flag::output_bias;
    BlockSpec attends;
    attends.flags = block_flag::attention | block_flag::causal | (sizes.qkv_bias ? block_flag::qkv_bias : 0) |
                    (sizes.output_bias ? block_flag::output_bias : 0);
    attends.heads = sizes.heads;
    attends.head_dimension = sizes.head_dimension;
    attends.attention_scale = 1.0F / std::sqrt(static_cast<float>(sizes.head_dimension));
    for (const LlamaSizes::Block& sizes_here : sizes.blocks) {
        BlockSpec block = sizes_here.kv_heads > 0 ? attends : BlockSpec{};
        block.kv_heads = sizes_here.kv_heads;
        block.first_part = static_cast<uint32_t>(s.parts.size());
        block.part_count = sizes_here.inner > 0 ? 1 : 0;
        part.width = sizes_here.inner;
        if (block.part_count > 0) s.parts.push_back(part);
        s.blocks.push_back(block);
    }
}

namespace {

// One checkpoint's tensors by name, listed for the file.
class Reader {
   public:
    Reader(Import& import, std::shared_ptr<Weights> weights) : import_(import), weights_(std::move(weights)) {
        import_.files.push_back(weights_);
    }
    bool has(const std::string& name) const { return weights_->has(name); }

    // `target` gets these tensors, one under another.
    void add(const std::string& target,
             const std::vector<std::pair<std::string, std::vector<uint64_t>>>& sources) {
        std::vector<const Safetensors::Tensor*> tensors;
        std::vector<uint64_t> shape = sources.front().second;
        shape[0] = 0;
        for (const auto& [name, dimensions] : sources) {
            tensors.push_back(&weights_->check(name, dimensions));
            shape[0] += dimensions[0];
        }
        import_.tensors.push_back(
            {target, std::move(shape), [file = weights_, tensors] { return Safetensors::stacked(tensors); }});
    }
    void refuse_unused(bool tied) {
        for (const std::string& name : weights_->unused()) {
            const bool harmless = name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
            if (!harmless)
                throw Error(Status::bad_model, "%s: tensor %s: no part of the model uses it",
                            weights_->path_of(name).c_str(), name.c_str());
            import_.notes.push_back("left out: " + name);
        }
    }

   private:
    Import& import_;
    std::shared_ptr<Weights> weights_;
};

void add_attention(Reader& reader, const LlamaSizes& s, const std::string& from, const std::string& to,
                   uint32_t kv_heads) {
    const std::string attention = from + "self_attn.";
    const uint64_t h = s.hidden, q = uint64_t{s.heads} * s.head_dimension,
                   kv = uint64_t{kv_heads} * s.head_dimension;
    reader.add(to + "attention.qkv.weight", {{attention + "q_proj.weight", {q, h}},
                                             {attention + "k_proj.weight", {kv, h}},
                                             {attention + "v_proj.weight", {kv, h}}});
    if (s.qkv_bias)
        reader.add(to + "attention.qkv.bias", {{attention + "q_proj.bias", {q}},
                                               {attention + "k_proj.bias", {kv}},
                                               {attention + "v_proj.bias", {kv}}});
    reader.add(to + "attention.out.weight", {{attention + "o_proj.weight", {h, q}}});
    if (s.output_bias) reader.add(to + "attention.out.bias", {{attention + "o_proj.bias", {h}}});
    reader.add(to + "attention.norm.weight", {{from + "input_layernorm.weight", {h}}});
}

void add_feed_forward(Reader& reader, const LlamaSizes& s, const std::string& from, const std::string& to,
                      uint64_t w) {
    const uint64_t h = s.hidden;
    reader.add(to + "parts.0.up.weight", {{from + "mlp.up_proj.weight", {w, h}}});
    reader.add(to + "parts.0.gate.weight", {{from + "mlp.gate_proj.weight", {w, h}}});
    reader.add(to + "parts.0.down.weight", {{from + "mlp.down_proj.weight", {h, w}}});
    if (s.mlp_bias) {
        reader.add(to + "parts.0.up.bias", {{from + "mlp.up_proj.bias", {w}}});
        reader.add(to + "parts.0.gate.bias", {{from + "mlp.gate_proj.bias", {w}}});
        reader.add(to + "parts.0.down.bias", {{from + "mlp.down_proj.bias", {h}}});
    }
    reader.add(to + "ffn.norm.weight", {{from + "post_attention_layernorm.weight", {h}}});
}

// eos_token_id: one, or a list, whose first is the tokenizer's own.
void read_ends(Import& import, const JsonFile& config) {
    const char* key = "eos_token_id";
    if (!config.has(key)) return;
    const auto& value = config.value()[key];
    for (const auto& each : value.is_array() ? value : nlohmann::json::array({value})) {
        const uint32_t id = JsonFile(config.name(), {{key, each}}).count(key, 0, import.spec.vocabulary - 1);
        int32_t& end = import.spec.tokenizer.end;
        if (end < 0) end = static_cast<int32_t>(id);
        if (end != static_cast<int32_t>(id) &&
            std::count(import.more_ends.begin(), import.more_ends.end(), id) == 0)
            import.more_ends.push_back(id);
    }
}

}  // namespace

std::unique_ptr<Import> import_llama(const std::string& folder, const JsonFile& config,
                                     const ConvertOptions& options) {
    const LlamaSizes s = llama_sizes(config);
    auto import = std::make_unique<Import>();
    describe_llama(import->spec, s);
    Reader reader(*import, std::make_shared<Weights>(folder));
    // Of tied matrices a file may hold either.
    const bool own_words =
        !s.tied || !reader.has("lm_head.weight") || reader.has("model.embed_tokens.weight");
    reader.add("embeddings.word",
               {{own_words ? "model.embed_tokens.weight" : "lm_head.weight", {s.vocabulary, s.hidden}}});
    for (size_t layer = 0; layer < s.blocks.size(); ++layer) {
        const std::string from = "model.layers." + std::to_string(layer) + ".",
                          to = "blocks." + std::to_string(layer) + ".";
        const auto [kv_heads, inner] = s.blocks[layer];
        if (kv_heads > 0) add_attention(reader, s, from, to, kv_heads);
        if (inner > 0) add_feed_forward(reader, s, from, to, inner);
    }
    reader.add("final_norm.weight", {{"model.norm.weight", {s.hidden}}});
    if (!s.tied) reader.add("output.weight", {{"lm_head.weight", {s.vocabulary, s.hidden}}});
    reader.refuse_unused(s.tied);
    TokenizerSpec& t = import->spec.tokenizer;
    read_ends(*import, config);
    const std::string generation = folder + "/generation_config.json";
    if (JsonFile::exists(generation)) read_ends(*import, JsonFile(generation));
    if (config.has("bos_token_id"))
        t.begin = static_cast<int32_t>(config.count("bos_token_id", 0, s.vocabulary - 1));
    t.max_tokens = limited_tokens(import->spec, options.max_tokens);
    if (JsonFile::exists(folder + "/tokenizer.json")) {
        import_tokenizer_json(*import, folder + "/tokenizer.json");
    } else if (JsonFile::exists(folder + "/tokenizer.model")) {
        import_sentencepiece_folder(*import, folder);
    } else {
        throw Error(Status::io, "%s: expected tokenizer.json or tokenizer.model, found neither",
                    folder.c_str());
    }
    if (!import->more_ends.empty())
        throw Error(Status::unsupported,
                    "%s: eos_token_id: expected further ones to be added tokens of a byte-level tokenizer, "
                    "found %u",
                    config.name().c_str(), import->more_ends.front());
    return import;
}

}  // namespace espalier
