// espalier convert: a checkpoint into a model file.
#include <cstdio>
#include <filesystem>

#include "apps/command.h"
#include "apps/importers/import.h"
#include "apps/progress.h"
#include "base/error.h"
#include "model_format/reader.h"
#include "model_format/writer.h"

namespace espalier {
namespace {

struct Options {
    std::string source, target, precision = "f32", origin, licence, name;
    ConvertOptions convert;
};

int convert(const Options& options) {
    const Precision precision = precision_named(options.precision);
    auto import = import_checkpoint(options.source, options.convert);
    ModelSpec& spec = import->spec;
    const std::filesystem::path folder = std::filesystem::path(options.source).lexically_normal();
    const std::string folder_name =
        folder.has_filename() ? folder.filename().string() : folder.parent_path().filename().string();
    spec.name = import->keep(options.name.empty() ? folder_name : options.name);
    spec.origin = import->keep(options.origin.empty() ? "converted from the checkpoint folder " + folder_name
                                                      : options.origin);
    spec.licence = import->keep(options.licence.empty() ? "not stated" : options.licence);
    spec.producer = import->keep(version_text());

    std::optional<Progress> progress;
    write_model(options.target.c_str(), spec, store(*import, precision),
                [&, before = uint64_t{0}](uint64_t done, uint64_t total) mutable {
                    if (!progress) progress.emplace("converting (bytes)", total);
                    progress->advance(done - before);
                    before = done;
                });
    progress.reset();
    for (const std::string& note : import->notes)
        std::fprintf(stderr, "%s\n", note.c_str());
    // What was written is read back as a stranger would, hash included.
    const ModelFile written = ModelFile::open(options.target.c_str());
    written.verify_payload();
    std::printf("%s: %zu tensors, %.1f MB, payload %016llx\n", options.target.c_str(),
                written.tensors().size(), static_cast<double>(written.bytes().size()) / 1e6,
                static_cast<unsigned long long>(written.payload_hash()));
    return 0;
}

}  // namespace

void add_convert(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("convert",
                                       "Import a Hugging Face BERT or Llama folder, UltraFastBERT, a tree "
                                       "checkpoint, or a llama2.c checkpoint");
    auto options = std::make_shared<Options>();
    command
        ->add_option("DIR", options->source,
                     "Folder with config.json, model.safetensors and vocab.txt or tokenizer.json; or a "
                     "llama2.c MODEL.bin")
        ->required();
    command->add_option("-o,--output", options->target, "The model file to write")->required();
    command->add_option("--precision", options->precision, "Stored numbers")
        ->check(CLI::IsMember({"f32", "f16", "bf16", "int8"}))
        ->capture_default_str();
    command->add_option("--base", options->convert.base,
                        "Folder that embeddings and vocabulary come from where DIR lacks them");
    command
        ->add_option("--pooling", options->convert.pooling,
                     "How hidden states become one vector (default: as DIR says)")
        ->check(CLI::IsMember({"mean", "cls"}));
    command
        ->add_option("--max-tokens", options->convert.max_tokens, "Longest sequence (default: all positions)")
        ->check(CLI::Range(3u, 1u << 24));
    command->add_option("--tokenizer", options->convert.tokenizer, "tokenizer.bin of a llama2.c checkpoint");
    command
        ->add_option(
            "--zero-goes", options->convert.zero_goes,
            "Where a node's product of exactly zero goes (default: as the layout's published code has it)")
        ->check(CLI::IsMember({"left", "right"}));
    command
        ->add_option(
            "--leaf-bias", options->convert.leaf_bias,
            "fastfeedforward's output bias of leaves, which its training adds and its evaluation does not")
        ->check(CLI::IsMember({"keep", "drop"}));
    command
        ->add_option("--leaf-activation", options->convert.leaf_activation,
                     "Activation in fastfeedforward's leaves, which checkpoints do not hold")
        ->check(CLI::IsMember({"relu", "gelu_erf", "gelu_tanh", "silu", "tanh", "none"}));
    command->add_option("--head-name", options->convert.head_name,
                        "Name of the only head (default: classifier); heads that DIR lists have their own");
    command->add_option("--name", options->name, "The model's name (default: the folder's)");
    command->add_option("--origin", options->origin, "Where the model came from, stored in the file");
    command->add_option("--licence", options->licence, "The model's licence, stored in the file");
    command->callback([options, &run] { run = [options] { return convert(*options); }; });
}

}  // namespace espalier
