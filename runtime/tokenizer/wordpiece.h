// WordPiece as BERT uses it: text to token ids, the same ids as BertWordPieceTokenizer of the Hugging Face
// package `tokenizers` 0.23.3 gives for any input. Written from the behaviour of that package; the greedy
// longest-match-first rule is that of Schuster and Nakajima, "Japanese and Korean voice search" (2012).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/vocabulary.h"

namespace espalier {

// False in a build without tokenizers.
bool tokenizers_compiled_in() noexcept;

// The defaults are those of an uncased BERT; the ids depend on the vocabulary.
struct WordPieceOptions {
    bool clean_text = true;     // drop control characters, white space becomes a blank
    bool split_cjk = true;      // every Chinese character is a word
    bool strip_accents = true;  // decompose (NFD), drop nonspacing marks
    bool lowercase = true;
    uint32_t max_word_characters = 100;    // a longer word (after normalisation) is one unknown token
    std::string_view continuation = "##";  // begins every piece of a word but the first
    int32_t unknown = -1;                  // -1: absent; the first three are required
    int32_t cls = -1;
    int32_t sep = -1;
    int32_t pad = -1;
    int32_t mask = -1;
};

// What tokenizing needs to remember while it runs. Its size depends on the options and on the ids asked
// for, not on the text; after the first call of a kind nothing is allocated. One thread at a time.
class TokenizerScratch {
   public:
    explicit TokenizerScratch(std::pmr::memory_resource* memory)
        : word(memory), marks(memory), hashes(memory), second(memory) {}

   private:
    friend class WordPiece;
    std::pmr::vector<char> word;        // the word being collected, UTF-8
    std::pmr::vector<uint64_t> marks;   // combining marks awaiting their canonical order
    std::pmr::vector<uint64_t> hashes;  // of the prefixes of the rest of a word
    std::pmr::vector<int32_t> second;   // the ids of the second text of a pair
};

struct Encoded {
    size_t count;    // ids of the whole sequence, special tokens included; may exceed what was stored
    bool truncated;  // max_length cost at least one id
};

// A const WordPiece may be used from any number of threads, each with its own scratch. It refers to the
// vocabulary, which must outlive it. Texts are UTF-8; ill-formed parts count as U+FFFD, NUL is a character
// like any other. Time is linear in the text, whatever it holds.
class WordPiece {
   public:
    static constexpr size_t no_limit = SIZE_MAX;

    // Throws Error(bad_model) where a required id is absent or an id is not in the vocabulary, where a
    // special token or the continuation is longer than 255 bytes, and for max_word_characters > 4096.
    WordPiece(const Vocabulary& vocabulary, const WordPieceOptions& options);

    // The ids of one text without [CLS] and [SEP]. Stores the first ids.size() of them and returns how many
    // there are in all; entries past that count hold anything. The text of a special token ("[MASK]")
    // becomes its id, exactly as written, wherever it stands; with plain_special it is text like any other.
    size_t tokenize(std::string_view text, bool plain_special, std::span<int32_t> ids,
                    TokenizerScratch& scratch) const;

    // [CLS] text [SEP], or [CLS] text [SEP] pair [SEP] with type 1 from the pair on. At most max_length ids:
    // the longer text loses its end first, as Hugging Face's longest_first does it. Stores the first
    // ids.size() ids and their types; entries past `count` hold anything. `types` is as long as `ids`, or
    // empty where nobody wants them. Throws Error(invalid_argument) where max_length has no room for the
    // special tokens, or where ids and types differ in length.
    Encoded encode(std::string_view text, std::optional<std::string_view> pair, size_t max_length,
                   bool plain_special, std::span<int32_t> ids, std::span<uint8_t> types,
                   TokenizerScratch& scratch) const;

   private:
    class Splitter;
    struct Special {
        std::string_view text;
        int32_t id;
    };
    struct SpecialMatch {
        size_t at;  // npos where the text holds no special token
        Special special;
    };
    // What an ASCII character becomes.
    enum class Ascii : uint8_t { letter, blank, punctuation, dropped };
    struct AsciiRule {
        Ascii kind;
        char lower;
    };
    struct Piece {
        int32_t id;  // -1: no token begins here
        size_t bytes;
    };

    void add_special(int32_t id, const char* name, bool required);
    void fill_ascii();
    void prepare(TokenizerScratch& scratch) const;
    SpecialMatch find_special(std::string_view text, size_t from) const noexcept;
    Piece longest_piece(std::string_view rest, bool first, std::span<uint64_t> hashes) const noexcept;

    const Vocabulary* vocabulary_;
    WordPieceOptions options_;  // without its continuation, which is copied to the next member
    std::string continuation_;
    uint64_t continuation_hash_;
    std::array<AsciiRule, 128> ascii_{};
    std::array<Special, 5> specials_{};  // longest first
    size_t special_count_ = 0;
    std::array<bool, 256> begins_special_{};
};

}  // namespace espalier
