// In place of the tokenizers in a build without them (ESPALIER_TOKENIZERS=OFF): models open, token ids run,
// and text is refused before it gets here.
#include "base/error.h"
#include "runtime/tokenizer/wordpiece.h"

namespace espalier {
namespace {

[[noreturn]] void refuse() {
    throw Error(Status::unsupported, "tokenizer: none in this build");
}

}  // namespace

bool tokenizers_compiled_in() noexcept {
    return false;
}

Vocabulary::Vocabulary(std::span<const uint32_t>, std::span<const char>, std::pmr::memory_resource* memory)
    : slots_(memory) {
    refuse();
}

WordPiece::WordPiece(const Vocabulary& vocabulary, const WordPieceOptions&)
    : vocabulary_(&vocabulary), continuation_hash_(0) {
    refuse();
}

Encoded WordPiece::encode(std::string_view, std::optional<std::string_view>, size_t, bool, std::span<int32_t>,
                          std::span<uint8_t>, TokenizerScratch&) const {
    refuse();
}

}  // namespace espalier
