// Llama folders: what a configuration may say, tensors in one file or several, and what is refused, and how.
#include <doctest/doctest.h>

#include <cmath>

#include "runtime/context.h"
#include "tests/command/llama_folder.h"

namespace espalier::test {

namespace {

// The weights that tests/scripts/llama_variants_expectations.py gives its models.
std::map<std::string, CheckpointTensor> numbered_tensors(const Json& shapes) {
    std::map<std::string, CheckpointTensor> tensors;
    uint64_t number = 0;
    for (const auto& [name, shape] : shapes.items()) {
        CheckpointTensor& tensor = tensors[name];
        tensor.shape = shape.get<std::vector<uint64_t>>();
        uint64_t count = 1;
        for (const uint64_t dimension : tensor.shape)
            count *= dimension;
        const bool norm = name.find("norm") != std::string::npos;
        for (uint64_t i = 0; i < count; ++i) {
            const auto step = static_cast<float>((i * 7919 + number * 104729 + i * i) % 127);
            const float value = (step - 63) / 128;
            tensor.values.push_back(norm ? 1 + value / 2 : value);
        }
        ++number;
    }
    return tensors;
}

// How far logits are from the variant's, its checkpoint converted with this configuration.
double worst_logit(const Json& variant, const Json& config) {
    const LlamaFolder folder([&](Checkpoint& c, Json&) {
        c.config = config;
        c.tensors = numbered_tensors(variant["shapes"]);
    });
    check_good(folder.convert());
    const auto model = Model::open(folder.out.c_str(), {});
    Context context(*model, {});
    const auto ids = variant["ids"].get<std::vector<int32_t>>();
    double worst = 0;
    for (const auto& [place, expected] : variant["logits"].items()) {
        context.decoder().clear();
        const auto logits = context.decoder().append(std::span(ids).first(std::stoul(place) + 1));
        REQUIRE(logits.size() == expected.size());
        for (size_t i = 0; i < logits.size(); ++i)
            worst = std::max(worst, std::fabs(logits[i] - expected[i].get<double>()));
    }
    return worst;
}

}  // namespace

// Configurations that transformers was asked about (tests/scripts/llama_variants_expectations.py).
TEST_CASE("unlike configurations answer as transformers does") {
    const auto variants = Json::parse(read_file(ESPALIER_TEST_DATA "/llama_variants.json"));
    REQUIRE(variants.size() == 10);
    for (const auto& [name, variant] : variants.items()) {
        CAPTURE(name);
        CHECK(worst_logit(variant, variant["config"]) < 1e-4);
        // The same as newer files say it.
        Json newer = variant["config"];
        newer["rope_parameters"] = newer.value("rope_scaling", Json{{"rope_type", "default"}});
        newer["rope_parameters"]["rope_theta"] = newer["rope_theta"];
        newer.erase("rope_scaling");
        newer.erase("rope_theta");
        CHECK(worst_logit(variant, newer) < 1e-4);
    }
}

TEST_CASE("positions that are scaled otherwise, or wrongly, are refused") {
    const Json good{{"rope_type", "llama3"},
                    {"factor", 8},
                    {"low_freq_factor", 1},
                    {"high_freq_factor", 4},
                    {"original_max_position_embeddings", 16}};
    const auto changed = [&](const char* key, const Json& value) {
        return [=](Checkpoint& c, Json&) {
            c.config["rope_scaling"] = good;
            c.config["rope_scaling"][key] = value;
        };
    };
    for (const char* type : {"yarn", "dynamic", "longrope", "su"})
        refuses(changed("rope_type", type), {"rope_scaling: rope_type", "default, linear or llama3", type});
    refuses(changed("factor", 0), {"rope_scaling: factor", "above 0"});
    refuses(changed("factor", nullptr), {"rope_scaling: factor", "found nothing"});
    refuses(changed("factor", "8"), {"rope_scaling: factor", "a number"});
    refuses(changed("low_freq_factor", 4), {"low_freq_factor", "less than high_freq_factor 4, found 4"});
    refuses(changed("original_max_position_embeddings", 0), {"original_max_position_embeddings"});
    refuses([](Checkpoint& c, Json&) { c.config["rope_scaling"] = 4; }, {"rope_scaling", "an object"});
    refuses([](Checkpoint& c, Json&) { c.config["rope_theta"] = -1; }, {"rope_theta", "above 0"});
    refuses(
        [&](Checkpoint& c, Json&) {
            c.config["rope_scaling"] = good;
            c.config["rope_parameters"] = good;
        },
        {"rope_scaling", "null beside rope_parameters"});
    refuses([](Checkpoint& c, Json&) { c.config["partial_rotary_factor"] = 0.5; }, {"partial_rotary_factor"});
    refuses([](Checkpoint& c, Json&) { c.config["quantization_config"] = Json::object(); }, {"quantised"});
    refuses([](Checkpoint& c, Json&) { c.config["mlp_bias"] = true; }, {"up_proj.bias", "missing"});
    refuses([](Checkpoint& c, Json&) { c.add("model.layers.0.mlp.up_proj.bias", {12}); },
            {"up_proj.bias", "no part of the model uses it"});
    refuses([](Checkpoint& c, Json&) { c.config["head_dim"] = 3; }, {"head_dim", "even"});
    refuses([](Checkpoint& c, Json&) { c.config["head_dim"] = 4; }, {"q_proj.weight", "[16, 8]", "[8, 8]"});
}

TEST_CASE("configurations and tensors that lie about shapes are refused") {
    refuses([](Checkpoint& c, Json&) { c.config["num_key_value_heads"] = 4; },
            {"k_proj.weight", "expected shape [8, 8]", "[4, 8]"});
    refuses([](Checkpoint& c, Json&) { c.config["intermediate_size"] = 13; }, {"up_proj.weight", "[13, 8]"});
    refuses([](Checkpoint& c, Json&) { c.config["num_key_value_heads"] = 3; },
            {"num_key_value_heads", "divisor"});
    refuses([](Checkpoint& c, Json&) { c.config["hidden_size"] = 4000000000u; }, {"hidden_size"});
    refuses([](Checkpoint& c, Json&) { c.config["num_hidden_layers"] = 1; }, {"model.layers.1.", "no part"});
    refuses([](Checkpoint& c, Json&) { c.config["vocab_size"] = 9; }, {"embed_tokens.weight", "[9, 8]"});
    refuses([](Checkpoint& c, Json&) { c.tensors.erase("lm_head.weight"); }, {"lm_head.weight", "missing"});
}

namespace {

// The folder of `f` with its tensors in two shards and an index of them, which `edit` may spoil.
struct Sharded {
    LlamaFolder folder;
    Json index;
    std::map<std::string, CheckpointTensor> first, second;
    Sharded() {
        std::filesystem::remove(folder.source + "/model.safetensors");
        for (const auto& [name, tensor] : llama_checkpoint().tensors) {
            const bool late = name.starts_with("model.layers.1");
            (late ? second : first)[name] = tensor;
            index["weight_map"][name] = late ? "b.safetensors" : "a.safetensors";
        }
    }
    Outcome convert() const {
        write_file(folder.source + "/a.safetensors", safetensors_file(first));
        write_file(folder.source + "/b.safetensors", safetensors_file(second));
        write_file(folder.source + "/model.safetensors.index.json", index.dump());
        return folder.convert();
    }
};

void refuses_shards(const std::function<void(Sharded&)>& edit, const std::vector<std::string>& words) {
    Sharded s;
    edit(s);
    check_refused(s.convert(), words);
}

}  // namespace

TEST_CASE("tensors in several files make the same model") {
    const LlamaFolder whole;
    check_good(whole.convert());
    const Sharded sharded;
    check_good(sharded.convert());
    CHECK(read_file(sharded.folder.out) == read_file(whole.out));
    // A folder that holds both kinds is read as transformers reads it.
    write_file(whole.source + "/model.safetensors.index.json", std::string("{"));
    check_good(whole.convert());
}

TEST_CASE("an index and shards that contradict each other are refused") {
    const std::string norm = "model.norm.weight";
    const auto place = [&](const Json& value) {
        return [=](Sharded& s) { s.index["weight_map"][norm] = value; };
    };
    for (const char* name : {"../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors",
                             "..\\a.safetensors", "", "..", "a.bin"})
        refuses_shards(place(name), {"index.json", norm, "in this folder"});
    refuses_shards(place(std::string("a.safetensors\0.safetensors", 26)), {norm, "in this folder"});
    refuses_shards(place(5), {norm, "in this folder", "found 5"});
    refuses_shards(place("c.safetensors"), {"index.json", norm, "shard c.safetensors: missing"});
    refuses_shards(place("b.safetensors"), {"index.json", norm, "expected it in b.safetensors"});
    refuses_shards([&](Sharded& s) { s.second[norm] = s.first[norm]; },
                   {norm, "a.safetensors, found it in b.safetensors too"});
    refuses_shards([&](Sharded& s) { s.index["weight_map"].erase(norm); },
                   {norm, "expected it in no shard, found it in a.safetensors"});
    refuses_shards(
        [&](Sharded& s) {
            s.index["weight_map"].erase(norm);
            s.first.erase(norm);
        },
        {"index.json", norm, "missing (expected shape [8])"});
    refuses_shards(
        [&](Sharded& s) {
            s.second["model.layers.1.mlp.up_proj.weight"].shape = {8, 12};
        },
        {"b.safetensors", "up_proj", "expected shape [12, 8], found [8, 12]"});
    refuses_shards([](Sharded& s) { s.index = Json::object(); }, {"weight_map", "found null"});
    refuses_shards([](Sharded& s) { s.index["weight_map"] = Json::object(); }, {"weight_map", "found none"});
    const LlamaFolder pickled;
    std::filesystem::remove(pickled.source + "/model.safetensors");
    write_file(pickled.source + "/pytorch_model.bin", std::string("x"));
    check_refused(pickled.convert(), {"expected model.safetensors", "found pytorch_model.bin"});
}

TEST_CASE("end tokens: one, as a number or a list, from either file") {
    const LlamaFolder one([](Checkpoint& c, Json&) { c.config["eos_token_id"] = {2, 2}; });
    write_file(one.source + "/generation_config.json", std::string("{\"eos_token_id\": 2}"));
    check_good(one.convert());
    refuses(
        [](Checkpoint& c, Json&) {
            c.config["eos_token_id"] = {2, 3};
        },
        {"eos_token_id", "added tokens of a byte-level tokenizer, found 3"});
    refuses([](Checkpoint& c, Json&) { c.config["eos_token_id"] = {2, 8}; }, {"eos_token_id", "0 to 7"});
    refuses([](Checkpoint& c, Json&) { c.config["eos_token_id"] = {"</s>"}; }, {"eos_token_id", "integer"});
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

}  // namespace espalier::test
