// The smallest Llama folders and llama2.c files that convert, for seeds.
#pragma once

#include <string>

#include "tests/command/checkpoint.h"
#include "tests/llama2c_files.h"

namespace espalier::test {

// Hidden 8, one layer, 4 heads over 2.
inline Checkpoint llama_checkpoint(uint64_t vocabulary) {
    Checkpoint c;
    c.config = Json::parse(R"({"model_type": "llama", "hidden_act": "silu", "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true})");
    c.config["vocab_size"] = vocabulary;
    c.add("model.embed_tokens.weight", {vocabulary, 8});
    const std::string layer = "model.layers.0.";
    for (const char* name : {"q_proj", "o_proj"})
        c.add(layer + "self_attn." + name + ".weight", {8, 8});
    for (const char* name : {"k_proj", "v_proj"})
        c.add(layer + "self_attn." + name + ".weight", {4, 8});
    for (const char* name : {"gate_proj", "up_proj"})
        c.add(layer + "mlp." + name + ".weight", {12, 8});
    c.add(layer + "mlp.down_proj.weight", {8, 12});
    for (const char* name : {"input_layernorm", "post_attention_layernorm"})
        c.add(layer + name + ".weight", {8});
    c.add("model.norm.weight", {8});
    return c;
}

// Of eight tokens, with byte fallback.
inline constexpr const char* fallback_tokenizer =
    R"({"added_tokens": [{"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
"normalized": false, "special": true}], "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend",
"prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}, "pre_tokenizer": null,
"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id":
"A"}}]}, "decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}, {"type":
"Fuse"}, {"type": "Strip"}]}, "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback":
true, "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6, "<0x0A>": 7}, "merges":
["▁ a"]}})";

// As llama2c_fuzzer.cpp reads it.
inline std::string llama2c_seed() {
    const Llama2cBytes files;
    std::string input;
    put(input, static_cast<uint32_t>(files.model.size()));
    return input + files.model + files.pieces;
}

}  // namespace espalier::test
