// Any bytes as a text for both kinds of byte-pair encoding: ids within the vocabulary, the same whatever room
// they are given, and from byte-level ids the text comes back. The first two bytes choose the options.
#include <vector>

#include "runtime/tokenizer/bpe.h"
#include "tests/fuzz/fuzz.h"
#include "tests/tiny_decoder.h"

namespace {

using namespace espalier;
using fuzz::require;

struct Tokens {
    std::vector<uint32_t> offsets{0};
    std::string text;
    explicit Tokens(const std::vector<std::string>& pieces) {
        for (const std::string& piece : pieces) {
            text += piece;
            offsets.push_back(static_cast<uint32_t>(text.size()));
        }
    }
};

// Every byte a token, some words, two tokens that are found before anything else.
std::vector<std::string> byte_pieces() {
    std::vector<std::string> pieces;
    for (int byte = 0; byte < 256; ++byte)
        pieces.emplace_back(1, static_cast<char>(byte));
    pieces.insert(pieces.end(), {"ab", "abc", " a", "12", "\xc3\xa9", "</s>", "<t>"});
    return pieces;
}
constexpr BpeMerge byte_merges[] = {
    {'a', 'b', 256, 0}, {256, 'c', 257, 1}, {' ', 'a', 258, 1}, {'1', '2', 259, 2}, {0xc3, 0xa9, 260, 3}};
constexpr AddedToken added[] = {{261, 1}, {262, 0}};

std::vector<int32_t> encode(const Bpe& rules, const Vocabulary& vocabulary, std::string_view text,
                            bool plain) {
    BpeScratch scratch(std::pmr::get_default_resource());
    std::vector<int32_t> ids(3 * text.size() + 8), few(3);
    const size_t count = rules.encode(text, plain, ids, scratch);
    require(count <= ids.size() && rules.encode(text, plain, few, scratch) == count);
    ids.resize(count);
    for (size_t i = 0; i < count; ++i) {
        require(ids[i] >= 0 && static_cast<size_t>(ids[i]) < vocabulary.size());
        require(i >= few.size() || few[i] == ids[i]);
    }
    return ids;
}

std::string decode(const Bpe& rules, const std::vector<int32_t>& ids) {
    std::string text;
    int32_t before = -1;
    for (const int32_t id : ids) {
        Bpe::Piece piece;
        rules.decode(before, id, piece);
        text += piece.text();
        before = id;
    }
    return text;
}

void byte_level(std::string_view text, uint8_t choice) {
    static const Tokens tokens(byte_pieces());
    static const Vocabulary vocabulary(tokens.offsets, tokens.text, std::pmr::get_default_resource());
    BpeOptions options;
    options.byte_level = true;
    options.add_begin = false;
    options.words = static_cast<WordRule>(choice % 3);
    options.single_digits = (choice & 4) != 0;
    options.whole_words = (choice & 8) != 0;
    const bool specials = (choice & 16) != 0;
    const Bpe rules(vocabulary, byte_merges, options, std::pmr::get_default_resource(),
                    specials ? std::span(added) : std::span<const AddedToken>());
    const std::string back = decode(rules, encode(rules, vocabulary, text, true));
    // Ill-formed bytes come back as U+FFFD.
    require(back.find("\xef\xbf\xbd") != std::string::npos || back == text);
    encode(rules, vocabulary, text, false);
}

void byte_fallback(std::string_view text, uint8_t choice) {
    static const Tokens tokens(test::tiny_pieces());
    static const Vocabulary vocabulary(tokens.offsets, tokens.text, std::pmr::get_default_resource());
    static const std::vector<uint32_t> numbers = test::tiny_merges();
    std::vector<BpeMerge> merges(numbers.size() / 4);
    std::memcpy(merges.data(), numbers.data(), numbers.size() * sizeof(uint32_t));
    BpeOptions options;
    options.add_begin = (choice & 1) != 0;
    options.prefix_space = (choice & 2) != 0;
    options.underlined_space = (choice & 4) != 0;
    options.named_specials = (choice & 8) != 0;
    options.unknown = (choice & 16) != 0 ? 0 : -1;
    options.begin = 1;
    options.end = 2;
    const Bpe rules(vocabulary, merges, options, std::pmr::get_default_resource());
    decode(rules, encode(rules, vocabulary, text, (choice & 32) != 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
    if (data[0] % 2 == 0) {
        byte_level(text, data[1]);
    } else {
        byte_fallback(text, data[1]);
    }
    return 0;
}
