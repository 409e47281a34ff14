// Decoders through the command: tiny Llama and llama2.c checkpoints in, models, text and perplexity out; what
// is refused, and how.
#include <doctest/doctest.h>

#include <bit>

#include "tests/command/checkpoint.h"
#include "tests/command/process.h"

namespace espalier::test {
namespace {

const std::string underline = "\xe2\x96\x81";

Json tokenizer_json() {
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
Checkpoint llama_checkpoint() {
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

struct Folder {
    TemporaryFolder folder;
    std::string source = folder.path("llama"), out = folder.path("out.esp");
    Folder(const std::function<void(Checkpoint&, Json&)>& edit = {}) {
        Checkpoint c = llama_checkpoint();
        Json tokenizer = tokenizer_json();
        if (edit) edit(c, tokenizer);
        c.write(source);
        write_file(source + "/tokenizer.json", tokenizer.dump());
    }
    Outcome convert() const { return espalier({"convert", source, "-o", out}); }
};

void refuses(const std::function<void(Checkpoint&, Json&)>& edit, const std::vector<std::string>& words) {
    const Folder f(edit);
    check_refused(f.convert(), words);
    CHECK(f.folder.files() == 1);
}

template <typename T>
void put(std::string& bytes, T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// dim 8, hidden 12, one layer, 4 heads over 2, 8 pieces, 16 positions.
struct Llama2cFiles {
    TemporaryFolder folder;
    std::string model = folder.path("m.bin"), tokenizer = folder.path("t.bin"), out = folder.path("out.esp");
    std::string bytes, pieces;
    Llama2cFiles() {
        for (const int32_t field : {8, 12, 1, 4, 2, 8, 16})
            put(bytes, field);
        const size_t floats = 8 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 96 + 8 + 16 * 2;
        for (size_t i = 0; i < floats; ++i)
            put(bytes, static_cast<float>(i * 37 % 23) / 23 - 0.4F);
        put(pieces, int32_t{5});
        float score = 0;
        for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n", " ", "a", "b", " a", "ab"}) {
            put(pieces, score--);
            put(pieces, static_cast<int32_t>(std::strlen(piece)));
            pieces += piece;
        }
    }
    Outcome convert() const {
        write_file(model, bytes);
        write_file(tokenizer, pieces);
        return espalier({"convert", model, "--tokenizer", tokenizer, "-o", out});
    }
};

}  // namespace

TEST_CASE("a Llama folder becomes a model that writes") {
    const Folder f;
    check_good(f.convert());
    CHECK(check_good(espalier({"verify", f.out})).status == 0);
    const Json j = Json::parse(check_good(espalier({"inspect", f.out, "--json"})).out);
    CHECK(j["family"] == "decoder");
    CHECK(j["blocks"][0]["kv_heads"] == 2);
    CHECK(j["tokenizer"]["kind"] == "byte_fallback_bpe");
    const auto run = [&](std::vector<std::string> more) {
        more.insert(more.begin(), {"generate", f.out, "--prompt", "a b", "--json"});
        return Json::parse(check_good(espalier(more)).out);
    };
    const Json greedy = run({"--max-tokens", "20"});
    CHECK(greedy["prompt_tokens"] == 4);  // <s>, "_a", "_", "b"
    CHECK(greedy["cache_bytes"] == 2 * 2 * 4 * 32 * 4);
    CHECK(run({"--max-tokens", "20", "--backend", "native", "--isa", "scalar"})["ids"] == greedy["ids"]);
    const Json all = run({"--temperature", "3", "--seed", "4"});
    CHECK((all["stop"] == "end_token" || all["stop"] == "window_full"));
    CHECK(all == run({"--temperature", "3", "--seed", "4"}));
    write_file(f.folder.path("text"), std::string("a b a a b ab a"));
    const Json p = Json::parse(
        check_good(espalier({"perplexity", f.out, f.folder.path("text"), "--json", "--window", "5"})).out);
    CHECK(p["window"] == 5);
    CHECK(p["tokens"] == 4 * p["windows"].get<int>());
    CHECK(p["perplexity"].get<double>() > 1);
}

TEST_CASE("a full window is said; a prompt that fills it is refused") {
    // Without an end token the window is what ends a text; <s> and "_a" are the prompt.
    const Folder endless([](Checkpoint& c, Json& tokenizer) {
        c.config["eos_token_id"] = nullptr;
        tokenizer["added_tokens"].erase(2);
    });
    check_good(endless.convert());
    const Outcome full = check_good(espalier({"generate", endless.out, "--prompt", "a", "--window", "6"}));
    CHECK(holds(full.err, "the window of 6 tokens is full (2 of the prompt, 4 new)"));
    const Folder unnamed([](Checkpoint& c, Json&) { c.config["eos_token_id"] = nullptr; });
    check_refused(unnamed.convert(), {"added_tokens"});  // "</s>" is no end token then
    const Folder h;
    check_good(h.convert());
    check_refused(espalier({"generate", h.out, "--prompt", "bbbbbbbb", "--window", "8"}),
                  {"prompt", "less than 8", "found 10"});
    const Outcome embedded = espalier({"embed", h.out, "a"});  // an error record in the text's place
    CHECK(embedded.status == 1);
    CHECK(holds(embedded.err, "expected an encoder, found a decoder"));
    check_usage(espalier({"generate", h.out, "--temperature", "-1"}));
    check_refused(espalier({"generate", h.out, "--prompt", "a\xff"}), {"--prompt", "ill-formed byte at 1"});
    write_file(h.folder.path("latin"), std::string("caf\xe9"));
    check_refused(espalier({"perplexity", h.out, h.folder.path("latin")}), {"latin", "ill-formed byte at 3"});
    write_file(h.folder.path("empty"), std::string());
    check_refused(espalier({"perplexity", h.out, h.folder.path("empty")}), {"expected tokens to foresee"});
    check_refused(espalier({"perplexity", h.out, h.folder.path("none")}), {"none", "cannot open"});
}

TEST_CASE("configurations and tensors that lie about shapes are refused") {
    refuses([](Checkpoint& c, Json&) { c.config["num_key_value_heads"] = 4; },
            {"k_proj.weight", "expected shape [8, 8]", "[4, 8]"});
    refuses([](Checkpoint& c, Json&) { c.config["intermediate_size"] = 13; }, {"up_proj.weight", "[13, 8]"});
    refuses([](Checkpoint& c, Json&) { c.config["num_key_value_heads"] = 3; },
            {"num_key_value_heads", "divisor"});
    refuses([](Checkpoint& c, Json&) { c.config["hidden_size"] = 4000000000u; }, {"hidden_size"});
    refuses([](Checkpoint& c, Json&) { c.config["num_hidden_layers"] = 1; }, {"model.layers.1.", "no part"});
    refuses([](Checkpoint& c, Json&) { c.config["rope_scaling"] = {{"type", "linear"}}; }, {"rope_scaling"});
    refuses([](Checkpoint& c, Json&) { c.config["vocab_size"] = 9; }, {"embed_tokens.weight", "[9, 8]"});
    refuses([](Checkpoint& c, Json&) { c.tensors.erase("lm_head.weight"); }, {"lm_head.weight", "missing"});
}

TEST_CASE("tokenizers that would give other ids are refused") {
    refuses(
        [](Checkpoint&, Json& t) {
            t["pre_tokenizer"] = {{"type", "Whitespace"}};
        },
        {"pre_tokenizer", "null"});
    refuses([](Checkpoint&, Json& t) { t["normalizer"] = {{"type", "NFC"}}; }, {"normalizer"});
    refuses([](Checkpoint&, Json& t) { t["model"]["type"] = "WordPiece"; }, {"model.type", "BPE"});
    refuses([](Checkpoint&, Json& t) { t["model"]["vocab"]["c"] = 8; }, {"model.vocab", "1 to 8", "found 9"});
    refuses([](Checkpoint&, Json& t) { t["model"]["vocab"]["b"] = 4; },
            {"model.vocab", "below 8 of its own"});
    refuses([](Checkpoint&, Json& t) { t["model"]["merges"] = {"a c"}; }, {"token c"});
    refuses([](Checkpoint&, Json& t) { t["model"]["merges"] = {"a b c"}; }, {"merge 0", "two tokens"});
    refuses([](Checkpoint& c, Json&) { c.config["bos_token_id"] = 4; }, {"added_tokens"});
}

TEST_CASE("a llama2.c checkpoint, and what its files must be") {
    Llama2cFiles good;
    check_good(good.convert());
    const Json j = Json::parse(
        check_good(espalier({"generate", good.out, "--prompt", "ab", "--max-tokens", "3", "--json"})).out);
    CHECK(j["prompt_tokens"] == 3);  // " a", of a better score than "ab", and "b"
    check_refused(espalier({"convert", good.model, "-o", good.out}), {"--tokenizer"});

    Llama2cFiles cut;
    cut.bytes.resize(cut.bytes.size() - 4);
    check_refused(cut.convert(), {"size", "expected 600 float32 values", "2396 bytes"});
    Llama2cFiles lies;
    lies.bytes[0] = 16;
    check_refused(lies.convert(), {"size", "found 2400 bytes"});
    Llama2cFiles heads;
    heads.bytes[12] = 3;
    check_refused(heads.convert(), {"n_heads"});
    Llama2cFiles header;
    header.bytes.resize(20);
    check_refused(header.convert(), {"header", "expected 28 bytes, found 20"});
    Llama2cFiles other;
    other.pieces += "more";
    check_refused(other.convert(), {"8 pieces", "another model"});
    Llama2cFiles fewer;
    fewer.pieces.resize(40);
    check_refused(fewer.convert(), {"piece "});
}

}  // namespace espalier::test
