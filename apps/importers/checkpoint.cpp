// Which importer a checkpoint is for.
#include <filesystem>

#include "apps/importers/bert.h"
#include "apps/importers/crammed.h"
#include "apps/importers/llama.h"
#include "base/error.h"

namespace espalier {

std::unique_ptr<Import> import_checkpoint(const std::string& path, const ConvertOptions& options) {
    if (std::filesystem::is_regular_file(path)) return import_llama2c(path, options);
    const JsonFile config(path + "/config.json");
    if (!options.tokenizer.empty())
        throw Error(Status::invalid_argument,
                    "--tokenizer: expected a llama2.c checkpoint (a file), found the folder %s",
                    path.c_str());
    if (config.has("ffn")) return import_tree_checkpoint(path, config, options);
    const std::string type = config.text_or("model_type", "");
    if (type == "bert") return import_bert(path, config, options);
    if (type == "crammedBERT") return import_crammed(path, config, options);
    if (type == "llama" || type == "nemotron-nas") return import_llama(path, config, options);
    throw Error(Status::unsupported,
                "%s: model_type: expected bert, crammedBERT, llama, or a tree checkpoint with ffn, found %s",
                config.name().c_str(), type.empty() ? "neither" : type.c_str());
}

}  // namespace espalier
