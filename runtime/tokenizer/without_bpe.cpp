// In place of byte-pair encoding in a build without tokenizers or without decoders: text is refused before it
// gets here.
#include "base/error.h"
#include "runtime/tokenizer/bpe.h"

namespace espalier {
namespace {

[[noreturn]] void refuse() {
    throw Error(Status::unsupported, "byte-pair encoding: none in this build");
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, std::span<const BpeMerge>, const BpeOptions&,
         std::pmr::memory_resource* memory, std::span<const AddedToken>)
    : vocabulary_(&vocabulary), slots_(memory) {
    refuse();
}

size_t Bpe::encode(std::string_view, bool, std::span<int32_t>, BpeScratch&) const {
    refuse();
}

bool Bpe::is_special(int32_t) const {
    refuse();
}

bool Bpe::ends_text(int32_t) const {
    refuse();
}

void Bpe::decode(int32_t, int32_t, Piece&) const {
    refuse();
}

}  // namespace espalier
