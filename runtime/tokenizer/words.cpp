#include "runtime/tokenizer/words.h"

#include <algorithm>
#include <iterator>

#include "runtime/tokenizer/unicode.h"

namespace espalier {
namespace {

// (code point << 4 | its kinds and those of its successors up to the next entry), sorted.
#include "runtime/tokenizer/word_tables.inc"

enum Kind : uint32_t { letter = 1, number = 2, space = 4, digit = 8 };

uint32_t kinds(char32_t code_point) {
    const auto after =
        std::upper_bound(std::begin(word_changes), std::end(word_changes), code_point << 4 | 15u);
    return *std::prev(after) & 15u;
}

// Reads a text character by character; the end is a character of no kind.
class Reader {
   public:
    explicit Reader(std::string_view text) : text_(text) { look(); }

    bool ended() const { return at_ == text_.size(); }
    size_t at() const { return at_; }
    char32_t character() const { return character_; }
    bool is(uint32_t kind) const { return !ended() && (kinds_ & kind) != 0; }
    bool is_newline() const { return !ended() && (character_ == U'\r' || character_ == U'\n'); }
    // What is neither white space nor letter nor number.
    bool is_sign() const { return !ended() && (kinds_ & (letter | number | space)) == 0; }
    void step() {
        if (ended()) return;
        at_ += bytes_;
        look();
    }
    void skip(uint32_t kind) {
        while (is(kind))
            step();
    }

   private:
    void look() {
        if (ended()) return;
        const unicode::Decoded decoded =
            unicode::decode_utf8(text_.data() + at_, text_.data() + text_.size());
        character_ = decoded.code_point;
        bytes_ = decoded.bytes;
        kinds_ = kinds(character_);
    }

    std::string_view text_;
    size_t at_ = 0, bytes_ = 0;
    char32_t character_ = 0;
    uint32_t kinds_ = 0;
};

char32_t folded(char32_t c) {
    if (c == 0x17F) return U's';  // the long s, the one letter more that folds to one of these
    return c >= U'A' && c <= U'Z' ? c + (U'a' - U'A') : c;
}

// 's 't 're 've 'm 'll 'd at the beginning; 0: none of them.
size_t contraction(std::string_view text, bool any_case) {
    Reader reader(text);
    if (reader.character() != U'\'') return 0;
    const auto next = [&] {
        reader.step();
        return reader.ended() ? U'\0' : any_case ? folded(reader.character()) : reader.character();
    };
    const char32_t first = next();
    if (first == U's' || first == U't' || first == U'm' || first == U'd') {
        reader.step();
        return reader.at();
    }
    const char32_t second = next();
    if ((first == U'r' && second == U'e') || (first == U'v' && second == U'e') ||
        (first == U'l' && second == U'l')) {
        reader.step();
        return reader.at();
    }
    return 0;
}

// \s+(?!\S)|\s+: white space, less its last character where a word follows and something is left.
size_t white_space(Reader reader) {
    size_t last = 0;
    while (reader.is(space)) {
        last = reader.at();
        reader.step();
    }
    return reader.ended() || last == 0 ? reader.at() : last;
}

// " ?[^\s\p{L}\p{N}]+", at a sign or a blank; 0: does not match.
size_t signs(Reader& reader) {
    if (reader.character() == U' ') reader.step();
    const size_t start = reader.at();
    while (reader.is_sign())
        reader.step();
    return reader.at() > start ? reader.at() : 0;
}

size_t first_word_gpt2(std::string_view text) {
    if (const size_t bytes = contraction(text, false); bytes > 0) return bytes;
    Reader reader(text);
    const Reader start = reader;
    if (reader.character() == U' ') reader.step();
    for (const uint32_t kind : {letter, number}) {
        if (!reader.is(kind)) continue;
        reader.skip(kind);
        return reader.at();
    }
    reader = start;
    if (const size_t bytes = signs(reader); bytes > 0) return bytes;
    return white_space(start);
}

// \s*[\r\n]+: up to the last newline of the white space that the text begins with; 0: there is none.
size_t newlines(Reader reader) {
    size_t end = 0;
    while (reader.is(space)) {
        const bool newline = reader.is_newline();
        reader.step();
        if (newline) end = reader.at();
    }
    return end;
}

size_t first_word_llama3(std::string_view text) {
    if (const size_t bytes = contraction(text, true); bytes > 0) return bytes;
    Reader reader(text);
    const Reader start = reader;
    if (!reader.is_newline() && !reader.is(letter | number)) reader.step();
    if (reader.is(letter)) {
        reader.skip(letter);
        return reader.at();
    }
    reader = start;
    if (reader.is(number)) {
        for (int i = 0; i < 3 && reader.is(number); ++i)
            reader.step();
        return reader.at();
    }
    if (signs(reader) > 0) {
        while (reader.is_newline())
            reader.step();
        return reader.at();
    }
    if (const size_t bytes = newlines(start); bytes > 0) return bytes;
    return white_space(start);
}

}  // namespace

size_t first_word(std::string_view text, WordRule rule) noexcept {
    switch (rule) {
        case WordRule::gpt2:
            return first_word_gpt2(text);
        case WordRule::llama3:
            return first_word_llama3(text);
        case WordRule::whole:
            break;
    }
    return text.size();
}

size_t first_digit_part(std::string_view text) noexcept {
    Reader reader(text);
    if (reader.is(digit)) {
        reader.step();
        return reader.at();
    }
    while (!reader.ended() && !reader.is(digit))
        reader.step();
    return reader.at();
}

}  // namespace espalier
