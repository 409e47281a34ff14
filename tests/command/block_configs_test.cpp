// Llama folders whose blocks differ (block_configs, as NVIDIA's fused models have them): what a block lacks
// or has of its own size, against the whole folder with the same tensors saying nothing.
#include <doctest/doctest.h>

#include "runtime/context.h"
#include "tests/command/llama_folder.h"

namespace espalier::test {

namespace {

// Logits behind each of a few tokens.
std::vector<float> answers(const std::function<void(Checkpoint&, Json&)>& edit) {
    const LlamaFolder folder(edit);
    check_good(folder.convert());
    const auto model = Model::open(folder.out.c_str(), {});
    Context context(*model, {});
    std::vector<float> all;
    for (const int32_t id : {1, 4, 6, 5, 3, 7}) {
        const auto logits = context.decoder().append(std::span(&id, 1));
        all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
}

void erase(Checkpoint& c, const std::string& prefix) {
    std::erase_if(c.tensors, [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

// `change` edits the second block's part of block_configs.
void configure(Checkpoint& c, const std::function<void(Json&)>& change) {
    const Json usual{
        {"attention", {{"no_op", false}, {"n_heads_in_group", 2}, {"replace_with_linear", false}}},
        {"ffn", {{"no_op", false}, {"intermediate_size", 12}, {"sparsify", nullptr}}}};
    c.config["block_configs"] = {usual, usual};
    change(c.config["block_configs"][1]);
}

}  // namespace

TEST_CASE("a block without attention is one whose attention says nothing") {
    const std::string layer = "model.layers.1.";
    const auto without = answers([&](Checkpoint& c, Json&) {
        erase(c, layer + "self_attn");
        erase(c, layer + "input_layernorm");
        configure(c, [](Json& block) {
            block["attention"] = {{"no_op", true}, {"n_heads_in_group", nullptr}};
        });
    });
    CHECK(without == answers([&](Checkpoint& c, Json&) {
              c.tensors.at(layer + "self_attn.o_proj.weight").values.assign(64, 0);
          }));
    CHECK(without != answers({}));
}

TEST_CASE("a block without a feed-forward layer") {
    const std::string layer = "model.layers.1.";
    CHECK(answers([&](Checkpoint& c, Json&) {
              erase(c, layer + "mlp");
              erase(c, layer + "post_attention_layernorm");
              configure(c, [](Json& block) { block["ffn"] = {{"no_op", true}, {"ffn_mult", nullptr}}; });
          }) == answers([&](Checkpoint& c, Json&) {
              c.tensors.at(layer + "mlp.down_proj.weight").values.assign(96, 0);
          }));
}

TEST_CASE("blocks of their own widths and numbers of key heads") {
    CHECK(answers([](Checkpoint& c, Json&) {
              c.config.erase("intermediate_size");
              c.config.erase("num_key_value_heads");
              configure(c, [](Json&) {});
          }) == answers({}));
    const std::string layer = "model.layers.1.";
    // floor(2 x 40.05 x 8 / 3) = 213, up to 256; one key head for all four.
    const auto edit = [&](const Json& change) {
        return [&layer, change](Checkpoint& c, Json&) {
            for (const char* name : {"mlp.gate_proj", "mlp.up_proj"})
                c.add(layer + name + ".weight", {256, 8});
            c.add(layer + "mlp.down_proj.weight", {8, 256});
            for (const char* name : {"self_attn.k_proj", "self_attn.v_proj"})
                c.add(layer + name + ".weight", {2, 8});
            configure(c, [&](Json& block) { block.update(change); });
        };
    };
    const Json good{{"attention", {{"n_heads_in_group", 4}}}, {"ffn", {{"ffn_mult", 40.05}}}};
    CHECK(answers(edit(good)).size() == 48);
    refuses(edit({{"ffn", {{"ffn_mult", 97}}}}), {"layers.1.", "expected shape"});
    refuses(edit({{"ffn", {{"ffn_mult", -1}}}}), {"block_configs[1]: ffn: ffn_mult", "above 0"});
    refuses(edit({{"ffn", {{"ffn_mult", 1e9}}}}), {"ffn_mult: expected a width"});
    refuses(edit({{"attention", {{"n_heads_in_group", 3}}}}), {"n_heads_in_group", "divisor"});
    refuses(edit({{"attention", {{"replace_with_linear", true}}}}), {"replace_with_linear", "false"});
    refuses(edit({{"attention", {{"window_length", 4}}}}),
            {"block_configs[1]: attention: window_length", "null"});
    refuses(edit({{"attention", 3}}), {"attention", "an object"});
    refuses([](Checkpoint& c, Json&) { configure(c, [&](Json&) { c.config["num_hidden_layers"] = 3; }); },
            {"block_configs", "3 layers, found 2"});
    refuses(
        [](Checkpoint& c, Json&) {
            c.config.erase("intermediate_size");
            configure(c, [](Json& block) { block["ffn"] = Json::object(); });
        },
        {"block_configs[1]: ffn: ffn_mult", "a number"});
}

}  // namespace espalier::test
