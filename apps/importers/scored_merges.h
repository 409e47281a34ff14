// Merging by score, as llama2.c and SentencePiece do it: of all neighbours whose texts together are a piece,
// those of the best score go first, of equal ones the leftmost.
#pragma once

#include <string>
#include <vector>

#include "runtime/tokenizer/bpe.h"

namespace espalier {

struct ScoredPieces {
    std::vector<std::string> texts;  // an empty one takes no part
    std::vector<float> scores;
};

// The same as a table of pairs: every way to split a piece into two others. Pieces of one score have one
// rank, the best the lowest.
std::vector<BpeMerge> scored_merges(const ScoredPieces& pieces);

}  // namespace espalier
