// A tiny Llama as a Hugging Face folder, for a test to spoil.
#pragma once

#include <functional>

#include "tests/command/checkpoint.h"
#include "tests/command/process.h"

namespace espalier::test {

inline const std::string underline = "\xe2\x96\x81";

inline Json tokenizer_json() {
    Json vocabulary;
    int32_t id = 0;
    for (const std::string& piece :
         {std::string("<unk>"), std::string("<s>"), std::string("</s>"), underline, std::string("a"),
          std::string("b"), underline + "a", std::string("<0x0A>")})
        vocabulary[piece] = id++;
    Json added = Json::array();
    for (const char* token : {"<unk>", "<s>", "</s>"})
        added.push_back({{"id", vocabulary[token]},
                         {"content", token},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", true},
                         {"special", true}});
    return {
        {"added_tokens", added},
        {"normalizer",
         {{"type", "Sequence"},
          {"normalizers",
           {{{"type", "Prepend"}, {"prepend", underline}},
            {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", underline}}}}}},
        {"pre_tokenizer", nullptr},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}},
        {"decoder",
         {{"type", "Sequence"},
          {"decoders",
           {{{"type", "Replace"}}, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, {{"type", "Strip"}}}}}},
        {"model",
         {{"type", "BPE"},
          {"unk_token", "<unk>"},
          {"fuse_unk", true},
          {"byte_fallback", true},
          {"vocab", vocabulary},
          {"merges", {underline + " a"}}}}};
}

// Hidden 8, two layers, 4 heads over 2.
inline Checkpoint llama_checkpoint() {
    Checkpoint c;
    c.config = {{"model_type", "llama"},
                {"hidden_act", "silu"},
                {"hidden_size", 8},
                {"intermediate_size", 12},
                {"num_hidden_layers", 2},
                {"num_attention_heads", 4},
                {"num_key_value_heads", 2},
                {"vocab_size", 8},
                {"max_position_embeddings", 32},
                {"rms_norm_eps", 1e-5},
                {"rope_theta", 10000.0},
                {"bos_token_id", 1},
                {"eos_token_id", 2},
                {"tie_word_embeddings", false}};
    c.add("model.embed_tokens.weight", {8, 8});
    for (const std::string& layer : {std::string("model.layers.0."), std::string("model.layers.1.")}) {
        c.add(layer + "self_attn.q_proj.weight", {8, 8});
        c.add(layer + "self_attn.k_proj.weight", {4, 8});
        c.add(layer + "self_attn.v_proj.weight", {4, 8});
        c.add(layer + "self_attn.o_proj.weight", {8, 8});
        c.add(layer + "mlp.gate_proj.weight", {12, 8});
        c.add(layer + "mlp.up_proj.weight", {12, 8});
        c.add(layer + "mlp.down_proj.weight", {8, 12});
        c.add(layer + "input_layernorm.weight", {8});
        c.add(layer + "post_attention_layernorm.weight", {8});
    }
    c.add("model.norm.weight", {8});
    c.add("lm_head.weight", {8, 8});
    return c;
}

struct LlamaFolder {
    TemporaryFolder folder;
    std::string source = folder.path("llama"), out = folder.path("out.esp");
    explicit LlamaFolder(const std::function<void(Checkpoint&, Json&)>& edit = {}) {
        Checkpoint c = llama_checkpoint();
        Json tokenizer = tokenizer_json();
        if (edit) edit(c, tokenizer);
        c.write(source);
        write_file(source + "/tokenizer.json", tokenizer.dump());
    }
    Outcome convert() const { return espalier({"convert", source, "-o", out}); }
};

inline void refuses(const std::function<void(Checkpoint&, Json&)>& edit,
                    const std::vector<std::string>& words) {
    const LlamaFolder f(edit);
    check_refused(f.convert(), words);
    CHECK(f.folder.files() == 1);
}

}  // namespace espalier::test
