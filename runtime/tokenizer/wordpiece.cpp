#include "runtime/tokenizer/wordpiece.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "runtime/tokenizer/id_sink.h"
#include "runtime/tokenizer/unicode.h"

namespace espalier {
namespace {

constexpr size_t longest_fixed_text = 255;  // special tokens, continuation: bounds the work for each byte
constexpr uint32_t most_word_characters = 4096;
constexpr size_t utf8_bytes = 4;

struct Lengths {
    size_t first, second;
};

// How many ids of each text stay where `room` is all there is: Hugging Face's longest_first, which cuts the
// longer text alone if that suffices, else leaves both half the room. The odd id goes to the longer text, to
// the second of two equals.
Lengths longest_first(Lengths lengths, size_t room) {
    if (lengths.first + lengths.second <= room) return lengths;
    const bool swapped = lengths.first > lengths.second;
    size_t shorter = std::min(lengths.first, lengths.second);
    size_t longer = shorter > room ? shorter : std::max(shorter, room - shorter);
    if (shorter + longer > room) {
        shorter = room / 2;
        longer = shorter + room % 2;
    }
    return swapped ? Lengths{longer, shorter} : Lengths{shorter, longer};
}

bool begins_character(char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

}  // namespace

// One text on its way to ids, a code point at a time: clean → set CJK apart → decompose, order, drop marks →
// lower case → words → pieces. Nothing but the current word is kept.
class WordPiece::Splitter {
   public:
    Splitter(const WordPiece& rules, TokenizerScratch& scratch, IdSink& sink)
        : rules_(rules), options_(rules.options_), scratch_(scratch), sink_(sink) {}

    void split(std::string_view text);

   private:
    const char* ascii(const char* at, const char* end);
    void clean(char32_t c);
    void normalize(char32_t c);
    void order(char32_t c);
    void lower(char32_t c);
    void classify(char32_t c);
    void append(char32_t c);
    void append_letter(char letter);
    void end_marks();
    void end_word();
    void blank() {
        end_marks();
        end_word();
    }

    const WordPiece& rules_;
    const WordPieceOptions& options_;
    TokenizerScratch& scratch_;
    IdSink& sink_;
    size_t characters_ = 0;  // of the word; no more than max_word_characters of them are stored
    size_t bytes_ = 0;       // of the stored ones
    size_t marks_ = 0;       // waiting; no more than max_word_characters + 1 are stored
};

void WordPiece::Splitter::split(std::string_view text) {
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at != end;) {
        if (static_cast<unsigned char>(*at) < 0x80) {
            at = ascii(at, end);
        } else {
            const unicode::Decoded decoded = unicode::decode_utf8(at, end);
            at += decoded.bytes;
            clean(decoded.code_point);
        }
    }
    blank();
}

// Takes a run of ASCII characters, whose whole way is one table look-up. Returns where the run ends.
const char* WordPiece::Splitter::ascii(const char* at, const char* end) {
    for (; at != end && static_cast<unsigned char>(*at) < 0x80; ++at) {
        const AsciiRule rule = rules_.ascii_[static_cast<unsigned char>(*at)];
        if (rule.kind == Ascii::dropped) continue;
        if (marks_ != 0) end_marks();
        if (rule.kind == Ascii::letter) {
            append_letter(rule.lower);
            continue;
        }
        end_word();
        if (rule.kind == Ascii::punctuation) {
            append_letter(rule.lower);
            end_word();
        }
    }
    return at;
}

void WordPiece::Splitter::clean(char32_t c) {
    const uint8_t facts = unicode::facts(c);
    if (options_.clean_text && (facts & unicode::control)) return;
    if (options_.clean_text && (facts & unicode::whitespace)) return blank();
    const bool apart = options_.split_cjk && (facts & unicode::cjk);
    if (apart) blank();
    normalize(c);
    if (apart) blank();
}

void WordPiece::Splitter::normalize(char32_t c) {
    if (!options_.strip_accents) return lower(c);
    char32_t parts[unicode::longest_decomposition];
    const size_t count = unicode::decompose(c, parts);
    for (size_t i = 0; i < count; ++i)
        order(parts[i]);
}

// Canonical order: marks between two starters (class 0) are sorted by class. Nonspacing marks are dropped,
// which a stable sort does not notice, but one of class 0 still ends the run.
void WordPiece::Splitter::order(char32_t c) {
    const uint64_t combining_class = unicode::combining_class(c);
    if (combining_class == 0) end_marks();
    if (unicode::facts(c) & unicode::nonspacing_mark) return;
    if (combining_class == 0) return lower(c);
    // Class, then place, then code point: sorting plain numbers is stable and allocates nothing.
    if (marks_ < scratch_.marks.size())
        scratch_.marks[marks_] = combining_class << 56 | uint64_t{marks_} << 32 | c;
    ++marks_;
}

void WordPiece::Splitter::end_marks() {
    if (marks_ == 0) return;
    // Where some were not stored, the others make the word too long, and its text is of no interest.
    const size_t stored = std::min(marks_, scratch_.marks.size());
    std::sort(scratch_.marks.begin(), scratch_.marks.begin() + static_cast<std::ptrdiff_t>(stored));
    for (size_t i = 0; i < stored; ++i)
        append(static_cast<char32_t>(scratch_.marks[i] & 0xFFFFFFFF));
    marks_ = 0;
}

void WordPiece::Splitter::lower(char32_t c) {
    if (!options_.lowercase) return classify(c);
    char32_t lowered[unicode::longest_lower_case];
    const size_t count = unicode::to_lower(c, lowered);
    for (size_t i = 0; i < count; ++i)
        classify(lowered[i]);
}

void WordPiece::Splitter::classify(char32_t c) {
    const uint8_t facts = unicode::facts(c);
    if (!(facts & (unicode::whitespace | unicode::punctuation))) return append(c);
    end_word();
    if (facts & unicode::whitespace) return;
    append(c);
    end_word();
}

void WordPiece::Splitter::append(char32_t c) {
    if (characters_++ < options_.max_word_characters)
        bytes_ += unicode::encode_utf8(c, scratch_.word.data() + bytes_);
}

void WordPiece::Splitter::append_letter(char letter) {
    if (characters_++ < options_.max_word_characters) scratch_.word[bytes_++] = letter;
}

// Greedy: the longest piece that begins the rest of the word. A word that cannot be covered is unknown.
void WordPiece::Splitter::end_word() {
    if (characters_ == 0) return;
    const std::string_view word(scratch_.word.data(), bytes_);
    const size_t before = sink_.count;
    bool known = characters_ <= options_.max_word_characters;
    for (size_t at = 0; known && at < word.size();) {
        const Piece piece = rules_.longest_piece(word.substr(at), at == 0, scratch_.hashes);
        known = piece.id >= 0;
        sink_.push(piece.id);
        at += piece.bytes;
    }
    if (!known) {
        sink_.count = before;
        sink_.push(options_.unknown);
    }
    characters_ = bytes_ = 0;
}

WordPiece::Piece WordPiece::longest_piece(std::string_view rest, bool first,
                                          std::span<uint64_t> hashes) const noexcept {
    const std::string_view head = first ? std::string_view{} : continuation_;
    uint64_t hash = first ? Vocabulary::empty_hash : continuation_hash_;
    const size_t longest = std::min(rest.size(), hashes.size());
    for (size_t i = 0; i < longest; ++i)
        hashes[i] = hash = Vocabulary::extend_hash(hash, rest[i]);
    for (size_t bytes = longest; bytes > 0; --bytes) {
        if (bytes < rest.size() && !begins_character(rest[bytes])) continue;
        const int32_t id = vocabulary_->find(hashes[bytes - 1], head, rest.substr(0, bytes));
        if (id >= 0) return {id, bytes};
    }
    return {-1, 0};
}

bool tokenizers_compiled_in() noexcept {
    return true;
}

WordPiece::WordPiece(const Vocabulary& vocabulary, const WordPieceOptions& options)
    : vocabulary_(&vocabulary), options_(options), continuation_(options.continuation) {
    if (options.max_word_characters > most_word_characters)
        throw Error(Status::bad_model, "tokenizer: words of %u characters, at most %u can be read",
                    options.max_word_characters, most_word_characters);
    if (continuation_.size() > longest_fixed_text)
        throw Error(Status::bad_model, "tokenizer: a continuation of %zu bytes, at most %zu can be read",
                    continuation_.size(), longest_fixed_text);
    options_.continuation = {};
    continuation_hash_ = Vocabulary::hash(continuation_);
    add_special(options.unknown, "unknown", true);
    add_special(options.cls, "cls", true);
    add_special(options.sep, "sep", true);
    add_special(options.pad, "pad", false);
    add_special(options.mask, "mask", false);
    std::stable_sort(specials_.begin(), specials_.begin() + static_cast<std::ptrdiff_t>(special_count_),
                     [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
    fill_ascii();
}

void WordPiece::add_special(int32_t id, const char* name, bool required) {
    if (id == -1 && !required) return;
    if (id < 0 || static_cast<size_t>(id) >= vocabulary_->size())
        throw Error(Status::bad_model, "tokenizer: the %s token has id %d, the vocabulary %zu tokens", name,
                    id, vocabulary_->size());
    const std::string_view text = vocabulary_->token(static_cast<size_t>(id));
    if (text.size() > longest_fixed_text)
        throw Error(Status::bad_model, "tokenizer: the %s token is %zu bytes long, at most %zu can be read",
                    name, text.size(), longest_fixed_text);
    if (text.empty()) return;  // has an id, but no text can hold it
    specials_[special_count_++] = {text, id};
    begins_special_[static_cast<unsigned char>(text.front())] = true;
}

void WordPiece::fill_ascii() {
    for (char32_t c = 0; c < ascii_.size(); ++c) {
        const uint8_t facts = unicode::facts(c);
        char32_t lowered[unicode::longest_lower_case] = {c};
        if (options_.lowercase) unicode::to_lower(c, lowered);
        Ascii kind = Ascii::letter;
        if (facts & unicode::whitespace) kind = Ascii::blank;
        if (facts & unicode::punctuation) kind = Ascii::punctuation;
        if (options_.clean_text && (facts & unicode::control)) kind = Ascii::dropped;
        ascii_[c] = {kind, static_cast<char>(lowered[0])};
    }
}

// Fixes every size beforehand, so that the loops above need no check but one against the length of a word.
void WordPiece::prepare(TokenizerScratch& scratch) const {
    const size_t word = options_.max_word_characters * utf8_bytes + utf8_bytes;
    scratch.word.resize(word);
    scratch.marks.resize(options_.max_word_characters + 1);
    // No piece is longer than the longest token: so much of a word is looked at in each step.
    scratch.hashes.resize(std::min(word, vocabulary_->longest_token()));
}

WordPiece::SpecialMatch WordPiece::find_special(std::string_view text, size_t from) const noexcept {
    for (size_t at = from; at < text.size(); ++at) {
        if (!begins_special_[static_cast<unsigned char>(text[at])]) continue;
        for (size_t i = 0; i < special_count_; ++i)
            if (text.substr(at).starts_with(specials_[i].text)) return {at, specials_[i]};
    }
    return {std::string_view::npos, {}};
}

size_t WordPiece::tokenize(std::string_view text, bool plain_special, std::span<int32_t> ids,
                           TokenizerScratch& scratch) const {
    prepare(scratch);
    IdSink sink{ids};
    Splitter splitter(*this, scratch, sink);
    size_t from = 0;
    while (!plain_special) {
        const SpecialMatch match = find_special(text, from);
        if (match.at == std::string_view::npos) break;
        splitter.split(text.substr(from, match.at - from));
        sink.push(match.special.id);
        from = match.at + match.special.text.size();
    }
    splitter.split(text.substr(from));
    return sink.count;
}

Encoded WordPiece::encode(std::string_view text, std::optional<std::string_view> pair, size_t max_length,
                          bool plain_special, std::span<int32_t> ids, std::span<uint8_t> types,
                          TokenizerScratch& scratch) const {
    const size_t fixed = pair ? 3 : 2;
    if (max_length < fixed)
        throw Error(Status::invalid_argument, "max_length is %zu, the special tokens alone are %zu",
                    max_length, fixed);
    if (!types.empty() && types.size() != ids.size())
        throw Error(Status::invalid_argument, "%zu types for %zu ids", types.size(), ids.size());

    Lengths all{tokenize(text, plain_special, ids.subspan(std::min<size_t>(1, ids.size())), scratch), 0};
    if (pair) {
        scratch.second.resize(std::max(scratch.second.size(), ids.size()));
        all.second = tokenize(*pair, plain_special, scratch.second, scratch);
    }
    const Lengths kept = longest_first(all, max_length - fixed);
    const size_t first_end = kept.first + 2;  // where the pair begins
    const size_t count = kept.first + kept.second + fixed;

    const auto put = [ids](size_t at, int32_t id) {
        if (at < ids.size()) ids[at] = id;
    };
    put(0, options_.cls);
    put(first_end - 1, options_.sep);
    for (size_t i = 0; i < kept.second && first_end + i < ids.size(); ++i)
        ids[first_end + i] = scratch.second[i];
    if (pair) put(count - 1, options_.sep);
    for (size_t i = 0; i < std::min(types.size(), count); ++i)
        types[i] = i < first_end ? 0 : 1;
    return {count, kept.first < all.first || kept.second < all.second};
}

}  // namespace espalier
