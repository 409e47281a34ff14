// llama2.c's tokenizer.bin: the length of the longest piece, then for each piece its score, length and bytes.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "apps/importers/llama.h"
#include "apps/importers/scored_merges.h"
#include "apps/importers/vocabulary.h"
#include "base/error.h"

namespace espalier {
namespace {

ScoredPieces read_pieces(const std::string& path, uint32_t count) {
    const MappedFile file(path.c_str(), true, std::pmr::get_default_resource());
    const auto bytes = file.bytes();
    size_t at = 4;
    ScoredPieces pieces;
    for (uint32_t i = 0; i < count; ++i) {
        float score = 0;
        int32_t length = 0;
        if (bytes.size() < at + 8)
            throw Error(
                Status::bad_model,
                "%s: piece %u: expected %u pieces (the model's), found the end (a tokenizer of another "
                "model?)",
                path.c_str(), i, count);
        std::memcpy(&score, bytes.data() + at, 4);
        std::memcpy(&length, bytes.data() + at + 4, 4);
        at += 8;
        if (length < 0 || static_cast<size_t>(length) > bytes.size() - at ||
            static_cast<size_t>(length) > Bpe::Piece::longest || !std::isfinite(score))
            throw Error(Status::bad_model,
                        "%s: piece %u: expected a finite score and at most %zu bytes, found %g and %d",
                        path.c_str(), i, std::min(Bpe::Piece::longest, bytes.size() - at),
                        static_cast<double>(score), length);
        pieces.texts.emplace_back(reinterpret_cast<const char*>(bytes.data()) + at,
                                  static_cast<size_t>(length));
        pieces.scores.push_back(score);
        at += static_cast<size_t>(length);
    }
    if (at != bytes.size())
        throw Error(Status::bad_model,
                    "%s: expected %u pieces (the model's) in %zu bytes, found %zu bytes (a tokenizer of "
                    "another model?)",
                    path.c_str(), count, at, bytes.size());
    return pieces;
}

}  // namespace

void import_scored_pieces(Import& import, const std::string& path) {
    const ScoredPieces pieces = read_pieces(path, import.spec.vocabulary);
    const auto merges = scored_merges(pieces);
    if (pieces.texts.size() < 3 || merges.empty())
        throw Error(Status::bad_model,
                    "%s: expected <unk>, <s>, </s> and pieces that merge, found %zu pieces", path.c_str(),
                    pieces.texts.size());
    TokenizerSpec& t = import.spec.tokenizer;
    t.kind = TokenizerKind::byte_fallback_bpe;
    t.flags = tokenizer_flag::add_begin | tokenizer_flag::prefix_space;
    t.unknown = 0;
    add_vocabulary(import, pieces.texts);
    add_merges(import, merges);
}

}  // namespace espalier
