// Vocabularies as tensors of the model file.
#pragma once

#include <string>
#include <vector>

#include "apps/importers/import.h"
#include "runtime/tokenizer/bpe.h"

namespace espalier {

// Tokens as the file and Vocabulary have them: token i is bytes[offsets[i], offsets[i + 1]).
struct JoinedTokens {
    std::vector<uint32_t> offsets;
    std::vector<char> bytes;
};
JoinedTokens joined(const std::vector<std::string>& tokens);

// tokenizer.offsets and tokenizer.bytes.
void add_vocabulary(Import& import, const std::vector<std::string>& tokens);
// tokenizer.merges.
void add_merges(Import& import, const std::vector<BpeMerge>& merges);
// tokenizer.added: pairs of id and AddedToken::kind.
void add_added_tokens(Import& import, const std::vector<uint32_t>& added);

}  // namespace espalier
