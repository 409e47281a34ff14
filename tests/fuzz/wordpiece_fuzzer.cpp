// Any bytes as a text: ids within the vocabulary, never more than asked for. The first byte of the input
// chooses the options, the length limit and whether a tab makes a pair.
#include <cstdint>
#include <cstdlib>
#include <memory_resource>
#include <string>
#include <vector>

#include "runtime/tokenizer/vocabulary.h"
#include "runtime/tokenizer/wordpiece.h"
#include "tests/tiny_model.h"

namespace {

using namespace espalier;

struct Tokens {
    std::vector<uint32_t> offsets{0};
    std::string text;
    Tokens() {
        for (const std::string& token : test::tiny_vocabulary()) {
            text += token;
            offsets.push_back(static_cast<uint32_t>(text.size()));
        }
    }
};

void require(bool good) {
    if (!good) std::abort();
}

void encode(const WordPiece& rules, std::string_view text, bool pairs, size_t limit, bool plain) {
    std::optional<std::string_view> pair;
    const size_t tab = pairs ? text.find('\t') : std::string_view::npos;
    if (tab != std::string_view::npos) pair = text.substr(tab + 1);
    std::vector<int32_t> ids(limit);
    std::vector<uint8_t> types(limit);
    TokenizerScratch scratch(std::pmr::get_default_resource());
    const Encoded encoded = rules.encode(text.substr(0, tab), pair, limit, plain, ids, types, scratch);
    require(encoded.count >= 2 && encoded.count <= limit);
    for (size_t i = 0; i < encoded.count; ++i) {
        require(ids[i] >= 0 && static_cast<size_t>(ids[i]) < test::tiny_vocabulary().size());
        require(types[i] <= (pair ? 1 : 0));
    }
    require(ids[0] == 2 && ids[encoded.count - 1] == 3);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const Tokens tokens;
    static const Vocabulary vocabulary(tokens.offsets, tokens.text, std::pmr::get_default_resource());
    if (size == 0) return 0;
    const uint8_t choice = data[0];
    WordPieceOptions options;
    options.clean_text = (choice & 1) == 0;
    options.split_cjk = (choice & 2) == 0;
    options.strip_accents = (choice & 4) == 0;
    options.lowercase = (choice & 8) == 0;
    options.max_word_characters = (choice & 16) == 0 ? 100 : 3;
    options.pad = 0, options.unknown = 1, options.cls = 2, options.sep = 3, options.mask = 4;
    const WordPiece rules(vocabulary, options);
    const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
    for (const bool plain : {false, true})
        encode(rules, text, (choice & 32) == 0, (choice & 64) == 0 ? 512 : 3 + choice % 7, plain);
    return 0;
}
