// espalier inspect, espalier verify: what is in a model file, and whether it is whole.
#include <cstdio>

#include "apps/command.h"
#include "apps/describe.h"

namespace espalier {
namespace {

// A string of the file's, of which nothing is a command to a terminal.
std::string shown(const Json& value) {
    auto text = value.get<std::string>();
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    return text;
}

void print_text(const Json& j) {
    std::printf("%s: %s, %s, format %s\n", shown(j["file"]).c_str(), shown(j["name"]).c_str(),
                shown(j["family"]).c_str(), shown(j["format"]).c_str());
    std::printf("  shape      %zu blocks, hidden %u, vocabulary %u, %u positions (%s), %s-norm, %s\n",
                j["blocks"].size(), j["hidden"].get<unsigned>(), j["vocabulary"].get<unsigned>(),
                j["max_positions"].get<unsigned>(), shown(j["positions"]).c_str(),
                shown(j["norm_placement"]).c_str(), shown(j["norm"]).c_str());
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
                    shown(block["ffn"]).c_str(),
                    block.contains("parallel") ? "; beside the block before" : "");
        first = b;
    }
    std::printf("  neurons    %llu stored, %llu computed for a token (%.1f %%), and %llu node tests\n",
                j["stored_neurons"].get<unsigned long long>(), j["active_neurons"].get<unsigned long long>(),
                100.0 * j["active_neurons"].get<double>() / std::max(1.0, j["stored_neurons"].get<double>()),
                j["node_tests"].get<unsigned long long>());
    for (const auto& head : j["heads"]) {
        std::printf("  head       %s: %s", shown(head["name"]).c_str(), shown(head["kind"]).c_str());
        for (const auto& label : head["labels"])
            std::printf(" %s", shown(label).c_str());
        std::printf("\n");
    }
    std::printf("  embedding  %s pooling, %s\n", shown(j["pooling"]).c_str(),
                j["normalise_output"] ? "of length 1" : "not normalised");
    const auto& t = j["tokenizer"];
    std::printf("  tokenizer  %s%s, at most %u tokens\n", shown(t["kind"]).c_str(),
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
    std::printf("  kernels    %s, %s; trees multiply by %s; dense by %s%s%s\n", shown(k["isa"]).c_str(),
                shown(k["precision"]).c_str(), shown(k["products"]).c_str(), shown(k["backend"]).c_str(),
                k.contains("dense") ? ": " : "", k.contains("dense") ? shown(k["dense"]).c_str() : "");
    if (k.contains("not_used"))
        std::printf("             the processor's %s are not used\n", shown(k["not_used"]).c_str());
    std::printf("  origin     %s\n  licence    %s\n  made by    %s\n  hash       %s\n",
                shown(j["origin"]).c_str(), shown(j["licence"]).c_str(), shown(j["producer"]).c_str(),
                shown(j["payload_hash"]).c_str());
}

struct Options {
    std::string file;
    CommonOptions common;
};

int inspect(const Options& options) {
    require_cpu(options.common, "inspect");
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
