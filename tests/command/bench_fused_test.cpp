// espalier bench fused, and bench model of random decoders: shapes, what is refused.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/command/process.h"

namespace espalier::test {
namespace {

using Json = nlohmann::json;

Json result(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "bench");
    arguments.insert(arguments.end(), {"--seconds", "0.01", "--json"});
    return Json::parse(check_good(espalier(arguments)).out);
}

}  // namespace

TEST_CASE("a run apart and fused: the same operations in fewer blocks") {
    for (const std::string precision : {"f32", "int8"}) {
        const Json j =
            result({"fused", "--synthetic", "llama-64-4", "--layers", "1-3", "--precision", precision});
        CHECK(j["precision"] == precision);
        CHECK(j["ffn"] == "gated-dense:256");
        CHECK(j["fused_ffn"] == "gated-dense:768");
        CHECK(j["apart"]["blocks"] == 4);
        CHECK(j["fused"]["blocks"] == 2);
        CHECK(j["apart"]["attention_blocks"] == 1);
        CHECK(j["apart"]["multiply_adds_per_token"] == j["fused"]["multiply_adds_per_token"]);
        CHECK(j["decode_ratio"].get<double>() ==
              doctest::Approx(j["apart"]["decode_ms"].get<double>() / j["fused"]["decode_ms"].get<double>()));
    }
    const Json trees = result({"fused", "--synthetic", "minilm", "--ffn", "leaf:1:3:16", "--layers", "0-5"});
    CHECK(trees["fused_ffn"] == "leaf:6:3:16");
    CHECK(trees["encode_ratio"] > 0);
    const Outcome table =
        check_good(espalier({"bench", "fused", "--synthetic", "llama-64-2", "--seconds", "0.01"}));
    CHECK(
        holds(table.out,
              "layers 0-1 without attention: gated-dense:256 apart (before), gated-dense:512 fused (after)"));
}

TEST_CASE("random decoders, with gated trees too") {
    const Json j = result({"model", "--synthetic", "llama-64-2", "--ids", "9"});
    CHECK(j["ffn"] == "gated-dense:256");
    CHECK(j["median_ms"] > 0);
    CHECK(j["decode_ms"] > 0);
    const Json trees = result(
        {"model", "--synthetic", "llama-128-2", "--ids", "9", "--ffn", "gated-leaf:1:3:8+gated-neuron:2:3"});
    CHECK(trees["ffn"] == "gated-leaf:1:3:8+gated-neuron:2:3");
    CHECK(trees["active_neurons"] == 2 * (8 + 2 * 4));
}

TEST_CASE("what cannot be measured is refused") {
    const auto refused = [](std::vector<std::string> arguments, const std::vector<std::string>& words) {
        arguments.insert(arguments.begin(), "bench");
        check_refused(espalier(arguments), words);
    };
    refused({"fused", "--synthetic", "llama-64-4", "--layers", "1-4"}, {"--layers", "0 to 3"});
    refused({"fused", "--synthetic", "llama-64-4", "--layers", "2"}, {"two layers"});
    refused({"fused", "--synthetic", "llama-64-4", "--layers", "0-1,2-3"}, {"one range"});
    for (const char* shape : {"llama-65-2", "llama-64-0", "llama-64", "llama-64-2x", "gpt"})
        refused({"model", "--synthetic", shape},
                {"--synthetic: expected minilm, bert-base or llama-H-L", shape});
    refused({"model", "--synthetic", "llama-64-1", "--batch", "2"}, {"--batch: expected 1"});
    refused({"layer", "--hidden", "64", "--ffn", "gated-dense:8", "--batch", "1"}, {"without gates"});
}

}  // namespace espalier::test
