// espalier inspect, espalier verify: what is in a model file, and whether it is whole.
#include <cstdio>
#include <map>

#include "apps/command.h"
#include "apps/ffn_spec.h"

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
    Context context(model, {});
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (!block.qkv) continue;
        j["kernels"]["dense"] = context.dense().implementation(*block.qkv, 32);
        break;
    }
    return j;
}

void print_text(const Json& j) {
    std::printf("%s: %s, %s, format %s\n", j["file"].get<std::string>().c_str(),
                j["name"].get<std::string>().c_str(), j["family"].get<std::string>().c_str(),
                j["format"].get<std::string>().c_str());
    std::printf("  shape      %zu blocks, hidden %u, vocabulary %u, %u positions (%s), %s-norm, %s\n",
                j["blocks"].size(), j["hidden"].get<unsigned>(), j["vocabulary"].get<unsigned>(),
                j["max_positions"].get<unsigned>(), j["positions"].get<std::string>().c_str(),
                j["norm_placement"].get<std::string>().c_str(), j["norm"].get<std::string>().c_str());
    size_t first = 0;
    const auto& blocks = j["blocks"];
    for (size_t b = 1; b <= blocks.size(); ++b) {
        if (b < blocks.size() && blocks[b] == blocks[first]) continue;
        const auto& block = blocks[first];
        const std::string attention = block["attention"]
                                          ? std::to_string(block["heads"].get<unsigned>()) + " heads of " +
                                                std::to_string(block["head_dimension"].get<unsigned>())
                                          : "none";
        std::printf("  block %2zu-%-2zu attention %s; feed-forward %s%s\n", first, b - 1, attention.c_str(),
                    block["ffn"].get<std::string>().c_str(),
                    block.contains("parallel") ? "; beside the block before" : "");
        first = b;
    }
    std::printf("  neurons    %llu stored, %llu computed for a token (%.1f %%), and %llu node tests\n",
                j["stored_neurons"].get<unsigned long long>(), j["active_neurons"].get<unsigned long long>(),
                100.0 * j["active_neurons"].get<double>() / std::max(1.0, j["stored_neurons"].get<double>()),
                j["node_tests"].get<unsigned long long>());
    for (const auto& head : j["heads"]) {
        std::printf("  head       %s: %s", head["name"].get<std::string>().c_str(),
                    head["kind"].get<std::string>().c_str());
        for (const auto& label : head["labels"])
            std::printf(" %s", label.get<std::string>().c_str());
        std::printf("\n");
    }
    std::printf("  embedding  %s pooling, %s\n", j["pooling"].get<std::string>().c_str(),
                j["normalise_output"] ? "of length 1" : "not normalised");
    const auto& t = j["tokenizer"];
    std::printf("  tokenizer  %s%s, at most %u tokens\n", t["kind"].get<std::string>().c_str(),
                t["lowercase"] ? ", lower case" : "", t["max_tokens"].get<unsigned>());
    std::printf("  bytes      %.1f MB in the file (", j["bytes"]["file"].get<double>() / 1e6);
    const char* comma = "";
    for (const auto& [type, bytes] : j["bytes"]["by_type"].items()) {
        std::printf("%s%s %.1f", comma, type.c_str(), bytes.get<double>() / 1e6);
        comma = ", ";
    }
    std::printf("), %.1f MB prepared beside it\n", j["bytes"]["prepared"].get<double>() / 1e6);
    std::printf("  parameters %llu\n", j["parameters"].get<unsigned long long>());
    const auto& k = j["kernels"];
    std::printf("  kernels    %s, %s; trees multiply by %s; dense by %s%s%s\n",
                k["isa"].get<std::string>().c_str(), k["precision"].get<std::string>().c_str(),
                k["products"].get<std::string>().c_str(), k["backend"].get<std::string>().c_str(),
                k.contains("dense") ? ": " : "",
                k.contains("dense") ? k["dense"].get<std::string>().c_str() : "");
    std::printf("  origin     %s\n  licence    %s\n  made by    %s\n  hash       %s\n",
                j["origin"].get<std::string>().c_str(), j["licence"].get<std::string>().c_str(),
                j["producer"].get<std::string>().c_str(), j["payload_hash"].get<std::string>().c_str());
}

struct Options {
    std::string file;
    CommonOptions common;
};

int inspect(const Options& options) {
    const auto model = open_model(options.file, options.common);
    const Json description = describe(*model);
    if (options.common.json) {
        print_json(description);
    } else {
        print_text(description);
    }
    return 0;
}

int verify(const Options& options) {
    const ModelFile file = ModelFile::open(options.file.c_str(), !options.common.no_mmap);
    file.verify_payload();
    char hash[17];
    std::snprintf(hash, sizeof(hash), "%016llx", static_cast<unsigned long long>(file.payload_hash()));
    if (options.common.json) {
        print_json({{"file", options.file},
                    {"ok", true},
                    {"tensors", file.tensors().size()},
                    {"bytes", file.bytes().size()},
                    {"payload_hash", hash}});
    } else {
        std::printf("%s: good: %zu tensors, %zu bytes, payload %s\n", options.file.c_str(),
                    file.tensors().size(), file.bytes().size(), hash);
    }
    return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("inspect", "What a model file holds and which kernels would run it");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file")->required();
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return inspect(*options); }; });
}

void add_verify(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("verify", "Check every byte of a model file");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file")->required();
    command->add_flag("--no-mmap", options->common.no_mmap,
                      "Read the file into memory instead of mapping it");
    command->add_flag("--json", options->common.json, "JSON to stdout");
    command->callback([options, &run] { run = [options] { return verify(*options); }; });
}

}  // namespace espalier
