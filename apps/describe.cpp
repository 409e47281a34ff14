#include "apps/describe.h"

#include <cstdio>
#include <map>

#include "apps/ffn_spec.h"
#include "kernels/cpu/isa.h"
#include "runtime/context.h"

namespace espalier {
namespace {

std::string text(std::string_view view) {
    return std::string(view);
}

Json describe_part(const PartSpec& part) {
    Json j{{"kind", name_of(part.kind)}, {"activation", name_of(part.activation)}};
    if (part.kind == PartKind::dense) {
        j["width"] = part.width;
    } else {
        j["trees"] = part.trees;
        j["depth"] = part.depth;
        if (part.kind == PartKind::leaf_forest) j["leaf_width"] = part.leaf_width;
        j["tie"] = name_of(part.tie);
    }
    j["gated"] = part.has(part_flag::gated);
    if (part.routes_on == RoutesOn::gate) j["routes_on"] = "gate";
    j["stored_neurons"] = part.stored_neurons();
    j["active_neurons"] = part.active_neurons();
    j["node_tests"] = part.node_tests();
    return j;
}

}  // namespace

Json describe(const Model& model) {
    const ModelSpec& s = model.spec();
    const ModelFile& file = model.file();
    Json j{{"file", file.source()},
           {"format", std::to_string(file.version_major()) + "." + std::to_string(file.version_minor())},
           {"name", text(s.name)},
           {"family", name_of(s.family)},
           {"hidden", s.hidden},
           {"vocabulary", s.vocabulary},
           {"positions", name_of(s.positions)},
           {"max_positions", s.max_positions},
           {"norm", name_of(s.norm)},
           {"norm_placement", name_of(s.norm_placement)},
           {"norm_epsilon", s.norm_epsilon},
           {"pooling", name_of(s.pooling)},
           {"normalise_output", s.has(model_flag::normalise_output)},
           {"origin", text(s.origin)},
           {"licence", text(s.licence)},
           {"producer", text(s.producer)}};
    uint64_t stored = 0, active = 0, tests = 0;
    Json blocks = Json::array();
    for (const BlockSpec& block : s.blocks) {
        Json parts = Json::array();
        for (const PartSpec& part : s.parts_of(block)) {
            parts.push_back(describe_part(part));
            stored += part.stored_neurons();
            active += part.active_neurons();
            tests += part.node_tests();
        }
        const bool attention = block.has(block_flag::attention);
        Json b{{"attention", attention}};
        if (attention) {
            b["heads"] = block.heads;
            b["head_dimension"] = block.head_dimension;
            if (block.kv_heads != block.heads) b["kv_heads"] = block.kv_heads;
        }
        if (block.has(block_flag::parallel)) b["parallel"] = true;  // reads what the block before it read
        b["ffn"] = ffn_text(s.parts_of(block));
        b["parts"] = std::move(parts);
        blocks.push_back(std::move(b));
    }
    j["blocks"] = std::move(blocks);
    j["stored_neurons"] = stored;
    j["active_neurons"] = active;
    j["node_tests"] = tests;
    j["parameters"] = model.parameters();
    Json heads = Json::array();
    for (const HeadSpec& head : s.heads) {
        Json labels = Json::array();
        for (const auto label : s.labels_of(head))
            labels.push_back(text(label));
        heads.push_back({{"name", text(head.name)},
                         {"kind", name_of(head.kind)},
                         {"outputs", head.outputs},
                         {"labels", std::move(labels)},
                         {"pooling", name_of(head.pooling)}});
    }
    j["heads"] = std::move(heads);
    const TokenizerSpec& t = s.tokenizer;
    j["tokenizer"] = {{"kind", name_of(t.kind)},
                      {"lowercase", (t.flags & tokenizer_flag::lowercase) != 0},
                      {"strip_accents", (t.flags & tokenizer_flag::strip_accents) != 0},
                      {"split_cjk", (t.flags & tokenizer_flag::split_cjk) != 0},
                      {"max_tokens", t.max_tokens}};
    std::map<std::string, uint64_t> bytes;
    for (const TensorView& tensor : file.tensors())
        bytes[name_of(tensor.type)] += tensor.bytes.size();
    j["bytes"] = {{"file", file.bytes().size()}, {"by_type", bytes}, {"prepared", model.prepared_bytes()}};
    char hash[17];
    std::snprintf(hash, sizeof(hash), "%016llx", static_cast<unsigned long long>(file.payload_hash()));
    j["payload_hash"] = hash;
    const TensorType precision = model.precision();
    j["kernels"] = {{"isa", name_of(model.kernels().isa)},
                    {"precision", precision_name(precision)},
                    {"products", precision == TensorType::s8     ? model.kernels().s8_products
                                 : precision == TensorType::bf16 ? model.kernels().bf16_products
                                                                 : "float32"},
                    {"backend", model.backend().name()}};
    if (cpu_has_arm_fp16()) j["kernels"]["not_used"] = "half floats (fp16)";
    ContextOptions few;
    few.max_tokens = 32;
    Context context(model, few);
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (!block.qkv) continue;
        j["kernels"]["dense"] = context.dense().implementation(*block.qkv, 32);
        break;
    }
    return j;
}

std::string json_text(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace espalier
