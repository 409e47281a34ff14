// espalier fuse through the command: what it analyses, chooses, writes and says; what it refuses, and how.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "runtime/context.h"
#include "tests/command/process.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {
namespace {

using Json = nlohmann::json;

// Six blocks with attention: an encoder with dense parts and trees, or a decoder with gated parts.
struct Models {
    TemporaryFolder folder;
    std::string encoder = folder.path("encoder.esp"), decoder = folder.path("decoder.esp"),
                out = folder.path("out.esp"), map = folder.path("map.svg"), lines = folder.path("lines.txt"),
                story = folder.path("story.txt");

    Models() {
        ModelSpec e = bare_spec();
        for (int b = 0; b < 6; ++b)
            add_block(e, block_flag::attention | block_flag::qkv_bias,
                      {dense_part(6), forest_part(PartKind::leaf_forest, 1, 2, 3)});
        write_file(encoder, model_to_memory(e, random_tensors(e, only(TensorType::f32))).span());
        ModelSpec d = TinyDecoder{}.spec();
        const PartSpec gated = d.parts[0];
        const BlockSpec attention = d.blocks[0];
        d.blocks.clear();
        d.parts.clear();
        for (int b = 0; b < 6; ++b) {
            add_block(d, 0, {gated});
            const uint32_t first = d.blocks.back().first_part;
            d.blocks.back() = attention;
            d.blocks.back().first_part = first;
        }
        write_file(decoder, TinyDecoder::bytes_of(d).span());
        write_file(lines, std::string("the tree\n\na leaf\nthe leaf the tree.\n"));
        write_file(story, std::string("abc abc ab a bc abc abc abc"));
    }
    Outcome fuse(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), "fuse");
        arguments.insert(arguments.end(), {"--seconds", "0.01", "--heat-map", map});
        return espalier(arguments);
    }
    Json fused(std::vector<std::string> arguments) const {
        arguments.emplace_back("--json");
        return Json::parse(check_good(fuse(arguments)).out);
    }
};

}  // namespace

TEST_CASE("analysing prints a table, an object, and draws") {
    const Models m;
    for (const bool decoder : {false, true}) {
        const std::string &model = decoder ? m.decoder : m.encoder, &text = decoder ? m.story : m.lines;
        const Json j = m.fused({model, "--analyse", text})["analysis"];
        CHECK(j["tokens"].get<int>() > 10);
        REQUIRE(j["dependency"].size() == 6);
        for (size_t a = 0; a < 6; ++a) {
            for (size_t b = 0; b < 6; ++b) {
                const Json& value = j["dependency"][a][b];
                if (b <= a) {
                    CHECK(value.is_null());
                } else {
                    CHECK(value.get<double>() > 0);
                    CHECK(value.get<double>() < 2);
                }
            }
        }
        CHECK(j["cosine"].size() == 6);
        CHECK(j["without_attention"].size() == 6);
        CHECK(j.contains("perplexity") == decoder);
        const std::string svg = read_file(m.map);
        CHECK(svg.starts_with("<svg "));
        CHECK(svg.ends_with("</svg>\n"));
        size_t cells = 0;
        for (size_t at = svg.find("<title>"); at != std::string::npos; at = svg.find("<title>", at + 1))
            ++cells;
        CHECK(cells == 15);
        const Outcome table = check_good(m.fuse({model, "--analyse", text}));
        CHECK(holds(table.out, "cosine of input and output"));
        CHECK(holds(table.out, decoder ? "perplexity without its attention" : "embeddings move"));
    }
}

TEST_CASE("a fused decoder: half the attention, half the cache, and the perplexity that the report says") {
    const Models m;
    const Json j = m.fused({m.decoder, "-o", m.out, "--text", m.story, "--drop-attention", "1-3", "--auto"});
    CHECK(j["dropped"] == Json({1, 2, 3}));
    CHECK(j["fused"] == Json::parse("[[1,2]]"));  // the last of the run is left out
    CHECK(j["before"]["blocks"] == 6);
    CHECK(j["after"]["blocks"] == 5);
    CHECK(j["after"]["attention_blocks"] == 3);
    CHECK(j["after"]["kv_cache_bytes"].get<double>() * 2 == j["before"]["kv_cache_bytes"].get<double>());
    CHECK(j["after"]["multiply_adds_per_token"] < j["before"]["multiply_adds_per_token"]);
    CHECK(j["after"]["file_bytes"] < j["before"]["file_bytes"]);
    CHECK(j["after"]["decode_ms"] > 0);
    for (const char* which : {"before", "after"}) {
        const std::string& file = std::string(which) == "before" ? m.decoder : m.out;
        const Json p = Json::parse(check_good(espalier({"perplexity", file, m.story, "--json"})).out);
        CHECK(j[which]["perplexity"].get<double>() ==
              doctest::Approx(p["perplexity"].get<double>()).epsilon(1e-6));
    }
    check_good(espalier({"verify", m.out}));
    const Json i = Json::parse(check_good(espalier({"inspect", m.out, "--json"})).out);
    CHECK(i["blocks"][1]["attention"] == false);
    CHECK(i["blocks"][1]["ffn"] == "gated-dense:40");
    CHECK(i["blocks"][2]["ffn"] == "gated-dense:20");
    CHECK(check_good(espalier({"generate", m.out, "--prompt", "abc", "--max-tokens", "4"})).err == "");
    const Outcome table =
        check_good(m.fuse({m.decoder, "-o", m.out, "--text", m.story, "--drop-attention", "1-3", "--auto"}));
    for (const char* words : {"attention removed from layers 1 2 3", "feed-forward layers fused: 1-2",
                              "perplexity", "key-value cache"})
        CHECK(holds(table.out, words));
}

TEST_CASE("a fused encoder: pairs, trees become one forest") {
    const Models m;
    const Json j =
        m.fused({m.encoder, "-o", m.out, "--text", m.lines, "--drop-attention", "1,3,5", "--pairs"});
    CHECK(j["fused"] == Json::parse("[[0,1],[2,3],[4,5]]"));
    CHECK(j["after"]["blocks"] == 3);
    CHECK(j["after"]["attention_blocks"] == 3);
    CHECK(j["embedding_cosine"].get<double>() < 1);
    CHECK(j["embedding_cosine"].get<double>() > -1);
    const Json i = Json::parse(check_good(espalier({"inspect", m.out, "--json"})).out);
    for (const Json& block : i["blocks"])
        CHECK(block["ffn"] == "dense:12+leaf:2:2:3");
    CHECK(check_good(espalier({"embed", m.out, "the tree"})).lines().size() == 1);
    // Nothing fused, nothing dropped but one attention: close to the original, but not it.
    const Json k = m.fused({m.encoder, "-o", m.out, "--text", m.lines, "--drop-attention", "5-5"});
    CHECK(k["after"]["blocks"] == 6);
    CHECK(k["embedding_cosine"].get<double>() < 0.99999);
}

TEST_CASE("how many: the attentions that cost least; full blocks beside each other") {
    const Models m;
    const Json j = m.fused({m.decoder, "-o", m.out, "--analyse", m.story, "--drop-attention", "2"});
    std::vector<std::pair<double, int>> costs;
    for (const Json& removal : j["analysis"]["without_attention"])
        costs.emplace_back(removal["perplexity"], removal["layer"]);
    std::sort(costs.begin(), costs.end());
    CHECK(j["dropped"] ==
          Json({std::min(costs[0].second, costs[1].second), std::max(costs[0].second, costs[1].second)}));
    for (const std::vector<std::string>& windows :
         {std::vector<std::string>{"--parallel"}, {"--parallel", "2"}}) {
        std::vector<std::string> arguments{m.decoder, "-o", m.out, "--analyse", m.story};
        arguments.insert(arguments.end(), windows.begin(), windows.end());
        const Json p = m.fused(arguments);
        CHECK(p["parallel"].size() == windows.size());
        size_t blocks = 0;
        for (const Json& range : p["parallel"])
            blocks += range[1].get<size_t>() - range[0].get<size_t>() + 1;
        CHECK(blocks == (windows.size() == 1 ? 4 : 6));
        CHECK(p["after"]["blocks"] == 6);
        const Json i = Json::parse(check_good(espalier({"inspect", m.out, "--json"})).out);
        const size_t first = p["parallel"][0][0].get<size_t>();
        CHECK_FALSE(i["blocks"][first].contains("parallel"));
        CHECK(i["blocks"][first + 1]["parallel"] == true);
        CHECK(p["after"]["perplexity"] != p["before"]["perplexity"]);
        check_refused(m.fuse({m.out, "--analyse", m.story}), {"beside each other"});
    }
}

TEST_CASE("what cannot be fused is one clear line, and writes nothing") {
    const Models m;
    const auto refused = [&](std::vector<std::string> arguments, const std::vector<std::string>& words) {
        arguments.insert(arguments.begin(), m.decoder);
        arguments.insert(arguments.end(), {"-o", m.out});
        const size_t files = m.folder.files();
        check_refused(m.fuse(arguments), words);
        CHECK(m.folder.files() == files);
    };
    refused({"--layers", "1-2"}, {"layers 1-2: layer 1 has attention"});
    refused({"--drop-attention", "1-9"}, {"--drop-attention", "0 to 5"});
    refused({"--drop-attention", "3-1"}, {"--drop-attention", "3-1"});
    refused({"--drop-attention", "1,1"}, {"layer 1 stands in the list twice"});
    refused({"--drop-attention", "1,x"}, {"--drop-attention: expected numbers", "'1,x'"});
    refused({"--drop-attention", "1-4", "--layers", "2-8"}, {"layers 2-8", "0 to 5"});
    refused({"--drop-attention", "1-4", "--layers", "3"}, {"layers 3-3", "two layers"});
    refused({"--drop-attention", "1-4", "--layers", "1-2,2-3"}, {"layer 2 is among layers 1-2"});
    refused({"--drop-attention", "1-4", "--layers", "0-3"}, {"layer 0 has attention", "--pairs"});
    refused({"--auto"}, {"nothing to fuse"});
    refused({"--drop-attention", "1-3", "--text", m.folder.path("absent")}, {"absent: cannot open"});
    write_file(m.folder.path("empty"), std::string());
    refused({"--drop-attention", "1-3", "--text", m.folder.path("empty")}, {"empty: expected a text"});
    check_refused(m.fuse({m.encoder, "--analyse", m.lines, "--parallel", "-o", m.out}),
                  {"--parallel", "norms in front"});
    check_usage(m.fuse({m.decoder}));
    check_usage(m.fuse({m.decoder, "-o", m.out}));
    check_usage(m.fuse({m.decoder, "--drop-attention", "1,2"}));
    check_usage(m.fuse({m.decoder, "-o", m.out, "--drop-attention", "2"}));
    check_usage(m.fuse({m.decoder, "-o", m.out, "--parallel"}));
    check_usage(m.fuse({m.decoder, "-o", m.decoder, "--drop-attention", "1,2"}));
    check_usage(m.fuse({m.decoder, "-o", m.out, "--auto", "--layers", "1-2"}));
}

}  // namespace espalier::test
