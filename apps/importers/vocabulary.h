// Vocabularies as tensors of the model file.
#pragma once

#include <string>
#include <vector>

#include "apps/importers/import.h"
#include "runtime/tokenizer/bpe.h"

namespace espalier {

// tokenizer.offsets and tokenizer.bytes.
void add_vocabulary(Import& import, const std::vector<std::string>& tokens);
// tokenizer.merges.
void add_merges(Import& import, const std::vector<BpeMerge>& merges);

}  // namespace espalier
