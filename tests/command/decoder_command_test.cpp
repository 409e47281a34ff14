// Decoders through the command: tiny Llama and llama2.c checkpoints in, models, text and perplexity out; what
// is refused, and how.
#include <doctest/doctest.h>

#include <bit>

#include "tests/command/llama_folder.h"
#include "tests/llama2c_files.h"

namespace espalier::test {
namespace {

struct Llama2cFiles {
    TemporaryFolder folder;
    std::string model = folder.path("m.bin"), tokenizer = folder.path("t.bin"), out = folder.path("out.esp");
    std::string bytes = Llama2cBytes().model, pieces = Llama2cBytes().pieces;
    Outcome convert() const {
        write_file(model, bytes);
        write_file(tokenizer, pieces);
        return espalier({"convert", model, "--tokenizer", tokenizer, "-o", out});
    }
};

}  // namespace

TEST_CASE("a Llama folder becomes a model that writes") {
    const LlamaFolder f;
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
    const LlamaFolder endless([](Checkpoint& c, Json& tokenizer) {
        c.config["eos_token_id"] = nullptr;
        tokenizer["added_tokens"].erase(2);
    });
    check_good(endless.convert());
    const Outcome full = check_good(espalier({"generate", endless.out, "--prompt", "a", "--window", "6"}));
    CHECK(holds(full.err, "the window of 6 tokens is full (2 of the prompt, 4 new)"));
    const LlamaFolder unnamed([](Checkpoint& c, Json&) { c.config["eos_token_id"] = nullptr; });
    check_refused(unnamed.convert(), {"added_tokens"});  // "</s>" is no end token then
    const LlamaFolder h;
    check_good(h.convert());
    check_refused(espalier({"generate", h.out, "--prompt", "bbbbbbbb", "--window", "8"}),
                  {"prompt", "less than 8", "found 10"});
    const Outcome embedded = espalier({"embed", h.out, "a"});  // an error record in the text's place
    CHECK(embedded.status == 1);
    CHECK(holds(embedded.err, "expected an encoder, found a decoder"));
    check_usage(espalier({"generate", h.out, "--temperature", "-1"}));
    check_refused(espalier({"generate", h.out, "--window", "33"}), {"--window", "at most 32", "found 33"});
    check_refused(espalier({"generate", h.out, "--prompt", "a\xff"}), {"--prompt", "ill-formed byte at 1"});
    write_file(h.folder.path("latin"), std::string("caf\xe9"));
    check_refused(espalier({"perplexity", h.out, h.folder.path("latin")}), {"latin", "ill-formed byte at 3"});
    write_file(h.folder.path("empty"), std::string());
    check_refused(espalier({"perplexity", h.out, h.folder.path("empty")}), {"expected tokens to foresee"});
    check_refused(espalier({"perplexity", h.out, h.folder.path("none")}), {"none", "cannot open"});
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
