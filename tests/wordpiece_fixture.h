// What the WordPiece tests share: two vocabularies, and the expectation lines that
// tests/scripts/wordpiece_expectations.py writes (its head describes them).
#pragma once

#include <cstdint>
#include <fstream>
#include <memory_resource>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/unicode.h"
#include "runtime/tokenizer/vocabulary.h"
#include "runtime/tokenizer/wordpiece.h"

namespace espalier::test {

struct FlatTokens {
    std::vector<uint32_t> offsets{0};
    std::string bytes;

    void add(std::string_view token) {
        bytes += token;
        offsets.push_back(static_cast<uint32_t>(bytes.size()));
    }
};

inline FlatTokens read_tokens(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot open " + path);
    FlatTokens tokens;
    for (std::string line; std::getline(file, line);)
        tokens.add(line);
    return tokens;
}

inline FlatTokens flat_tokens(std::initializer_list<std::string_view> list) {
    FlatTokens tokens;
    for (std::string_view token : list)
        tokens.add(token);
    return tokens;
}

inline WordPieceOptions uncased_bert(const Vocabulary& vocabulary) {
    WordPieceOptions options;
    options.unknown = vocabulary.find("[UNK]");
    options.cls = vocabulary.find("[CLS]");
    options.sep = vocabulary.find("[SEP]");
    options.pad = vocabulary.find("[PAD]");
    options.mask = vocabulary.find("[MASK]");
    return options;
}

// A vocabulary of its own and the uncased BERT rules that read text with it.
struct Tokenizer {
    explicit Tokenizer(FlatTokens from) : tokens(std::move(from)) {}
    FlatTokens tokens;
    Vocabulary vocabulary{tokens.offsets, tokens.bytes, std::pmr::get_default_resource()};
    WordPiece uncased{vocabulary, uncased_bert(vocabulary)};
};

// bert-base-uncased.
inline const Tokenizer& bert() {
    static const Tokenizer instance(read_tokens(ESPALIER_TEST_DATA "/wordpiece/vocab.txt"));
    return instance;
}

// Ids in the vocabulary below: every scalar value c in order, as the tokens c and ##c.
constexpr int32_t special_tokens = 5;
constexpr int32_t character_id(char32_t c) {
    return special_tokens + 2 * static_cast<int32_t>(c < 0xD800 ? c : c - 0x800);
}

// Every character is a token: ids spell out the normalised text, where the other vocabulary knows few
// characters and says [UNK] for the rest.
inline const Tokenizer& characters() {
    static const Tokenizer instance([] {
        FlatTokens tokens;
        for (std::string_view special : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
            tokens.add(special);
        for (char32_t c = 0; c < 0x110000; ++c) {
            if (c >= 0xD800 && c < 0xE000) continue;
            char bytes[4];
            const std::string character(bytes, unicode::encode_utf8(c, bytes));
            tokens.add(character);
            tokens.add("##" + character);
        }
        return tokens;
    }());
    return instance;
}

// One line of an expectation file.
struct Expectation {
    struct Ids {
        size_t max_length;
        std::vector<int32_t> ids;
        std::vector<uint8_t> types;
    };
    std::string a;
    std::optional<std::string> b;
    const Tokenizer* tokenizer;
    bool plain_special;
    nlohmann::json options;
    Ids whole;
    std::optional<Ids> cut;
};

inline std::string from_hex(const std::string& hex) {
    std::string bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return bytes;
}

inline Expectation::Ids read_ids(const nlohmann::json& json) {
    return {json.value("max_length", WordPiece::no_limit), json.at("ids"), json.at("types")};
}

inline Expectation read_expectation(const std::string& line) {
    const nlohmann::json json = nlohmann::json::parse(line);
    Expectation expectation;
    if (json.contains("a_hex")) {
        expectation.a = from_hex(json.at("a_hex"));
    } else {
        expectation.a = json.at("a");
    }
    if (json.contains("b")) expectation.b = json.at("b").get<std::string>();
    expectation.tokenizer = json.value("vocabulary", "") == "characters" ? &characters() : &bert();
    expectation.plain_special = json.value("plain_special", false);
    expectation.options = json.value("options", nlohmann::json::object());
    expectation.whole = read_ids(json);
    if (json.contains("cut")) expectation.cut = read_ids(json.at("cut"));
    return expectation;
}

// The options as BertWordPieceTokenizer names them, over those of an uncased BERT.
inline WordPieceOptions with_options(WordPieceOptions options, const nlohmann::json& json) {
    options.lowercase = json.value("lowercase", true);
    options.strip_accents = json.value("strip_accents", options.lowercase);
    options.clean_text = json.value("clean_text", true);
    options.split_cjk = json.value("handle_chinese_chars", true);
    return options;
}

// Whether `rules` give the ids, types and truncation of `expected`.
inline bool agrees(const WordPiece& rules, const Expectation& line, const Expectation::Ids& expected,
                   TokenizerScratch& scratch) {
    std::vector<int32_t> ids(expected.ids.size());
    std::vector<uint8_t> types(ids.size());
    std::optional<std::string_view> pair;
    if (line.b) pair = *line.b;
    const Encoded encoded =
        rules.encode(line.a, pair, expected.max_length, line.plain_special, ids, types, scratch);
    return encoded.count == ids.size() && ids == expected.ids && types == expected.types &&
           encoded.truncated == (&expected != &line.whole);
}

inline bool agrees(const Expectation& line, TokenizerScratch& scratch) {
    const Vocabulary& vocabulary = line.tokenizer->vocabulary;
    std::optional<WordPiece> other;
    if (!line.options.empty())
        other.emplace(vocabulary, with_options(uncased_bert(vocabulary), line.options));
    const WordPiece& rules = other ? *other : line.tokenizer->uncased;
    return agrees(rules, line, line.whole, scratch) && (!line.cut || agrees(rules, line, *line.cut, scratch));
}

}  // namespace espalier::test
