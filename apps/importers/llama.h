// Decoders of the Llama family: Hugging Face folders and llama2.c's checkpoints.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "apps/importers/import.h"
#include "apps/importers/json.h"

namespace espalier {

// What both are made of: RMSNorm in front, rotary positions, grouped queries, a gated part a block.
struct LlamaSizes {
    // 0: no attention, no feed-forward part.
    struct Block {
        uint32_t kv_heads = 0, inner = 0;
    };
    uint32_t hidden = 0, heads = 0, head_dimension = 0, vocabulary = 0, positions = 0;
    std::vector<Block> blocks;
    float norm_epsilon = 0, rope_theta = 0;
    std::array<float, 4> rope_scaling{};
    RopePairing pairing = RopePairing::halves;
    bool qkv_bias = false, output_bias = false, mlp_bias = false, tied = false;
};
// config.json of a Hugging Face folder. Throws Error that names the field that is wrong, or that asks for
// what does not run.
LlamaSizes llama_sizes(const JsonFile& config);
void describe_llama(ModelSpec& spec, const LlamaSizes& sizes);

std::unique_ptr<Import> import_llama(const std::string& folder, const JsonFile& config,
                                     const ConvertOptions& options);
// A file of llama2.c's first version, with its tokenizer.bin (--tokenizer).
std::unique_ptr<Import> import_llama2c(const std::string& path, const ConvertOptions& options);

// tokenizer.json of a folder: byte-pair encoding with byte fallback.
void import_tokenizer_json(Import& import, const std::string& path);
// tokenizer.model of SentencePiece, BPE; and with what files beside it say, as the package transformers reads
// a folder without tokenizer.json.
void import_sentencepiece(Import& import, const std::string& path);
void import_sentencepiece_folder(Import& import, const std::string& folder);
// llama2.c's tokenizer.bin: as many pieces as the model has, each with a score.
void import_scored_pieces(Import& import, const std::string& path);

}  // namespace espalier
