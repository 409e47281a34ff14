// What was made of a tokenizer.model against libsentencepiece itself, in a build with it
// (ESPALIER_SENTENCEPIECE).
#pragma once

#include <string>

#include "runtime/tokenizer/bpe.h"

namespace espalier {

// Throws Error(bad_model) where libsentencepiece refuses the file, and Error(unsupported) with the first text
// that gives other ids: of every piece, every piece behind another, and texts that are known to be hard.
void check_with_sentencepiece(const std::string& path, const Bpe& pieces);

}  // namespace espalier
