// BERT checkpoints: what the dense Hugging Face folder and our tree checkpoints have in common.
#pragma once

#include <string>

#include "apps/importers/import.h"
#include "apps/importers/json.h"

namespace espalier {

// Reads one checkpoint's tensors by name and lists them for the file.
class BertReader {
   public:
    BertReader(Import& import, std::shared_ptr<Weights> weights, const JsonFile& config);

    // Where tensor names start: "" or "bert.".
    const std::string& prefix() const { return prefix_; }
    Weights& weights() { return *weights_; }

    // Sizes, norm, positions, pooling of a BERT encoder without its blocks.
    void read_sizes();
    // Adds a block with standard BERT attention; its parts follow by add_part.
    void add_attention_block(size_t layer, bool attention);
    void add_part(const PartSpec& part);
    void add_output_norm(size_t layer);
    // `target` takes the tensor `source` (full name), which must have this shape in the checkpoint and gets
    // `dimensions` in the file.
    void add(const std::string& target, const std::string& source, std::vector<uint64_t> shape,
             std::vector<uint64_t> dimensions = {});
    // The same, but the file gets what `change` makes of the values.
    void add_changed(const std::string& target, const std::string& source, std::vector<uint64_t> shape,
                     std::vector<uint64_t> dimensions,
                     std::function<std::vector<float>(std::vector<float>)> change);
    // Several [n, …] tensors one under another.
    void add_stacked(const std::string& target, const std::vector<std::string>& sources,
                     std::vector<uint64_t> shape);
    // The three embedding tables, from `tables` (perhaps another checkpoint), rounded to f16 if asked.
    void add_embeddings(const std::shared_ptr<Weights>& tables, bool round_to_half);
    void add_embedding_norm();
    // Throws where tensors are left that are not in the list of harmless ones; notes those that are.
    void check_unused(bool pooler_unused);

   private:
    std::string norm_name(const std::string& module, bool weight) const;
    void add_norm(const std::string& target, const std::string& module);

    Import& import_;
    std::shared_ptr<Weights> weights_;
    const JsonFile& config_;
    std::string prefix_;
};

// The activation of that name in a Hugging Face config. Throws.
Activation activation_named(const JsonFile& config, const char* key);
// Vocabulary and WordPiece flags from a folder with vocab.txt (and tokenizer_config.json).
void import_wordpiece(Import& import, const std::string& folder, uint32_t max_tokens,
                      std::optional<bool> lowercase);
// The same from a tokenizer.json of BERT's rules; of others nothing is taken, and the answer says what
// differs.
std::string import_wordpiece_json(Import& import, const std::string& path, uint32_t max_tokens);

struct WordPieceRules {
    bool clean_text = true, split_cjk = true, strip_accents = true, lowercase = true;
};
// Both end here; `path` is for messages. Throws where there are more tokens than embedding rows, or no [UNK],
// [CLS] or [SEP].
void add_wordpiece(Import& import, const std::string& path, std::vector<std::string> tokens,
                   const WordPieceRules& rules, uint32_t max_tokens);
// A classifier's labels from id2label, where the config has it.
void read_labels(Import& import, const JsonFile& config, HeadSpec& head);
void set_pooling(Import& import, const std::string& pooling);
Pooling pooling_named(const std::string& name);

std::unique_ptr<Import> import_bert(const std::string& folder, const JsonFile& config,
                                    const ConvertOptions& options);
std::unique_ptr<Import> import_tree_checkpoint(const std::string& folder, const JsonFile& config,
                                               const ConvertOptions& options);

}  // namespace espalier
