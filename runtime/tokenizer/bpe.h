// Byte-pair encoding as Llama-family models use it, with the ids of the package `tokenizers`: over whole
// texts with byte fallback (llama2.c's and SentencePiece's merges by score too, which an importer turns into
// the same table of pairs), or byte-level, over words, whose vocabulary holds the bytes themselves. Pieces
// back into text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/id_sink.h"
#include "runtime/tokenizer/vocabulary.h"
#include "runtime/tokenizer/words.h"

namespace espalier {

struct BpeOptions {
    bool add_begin = true;          // the sequence starts with the token `begin`
    bool prefix_space = false;      // a text that is not empty begins with a space
    bool underlined_space = false;  // pieces hold U+2581 for a space
    bool single_spaces = false;     // none at a text's ends, one where there are several
    bool named_specials = false;    // the text of a special token stands for it
    int32_t unknown = -1, begin = -1, end = -1, pad = -1;  // -1: absent

    bool byte_level = false;  // the rest is for it alone, as the three above are not
    WordRule words = WordRule::whole;
    bool single_digits = false;  // every digit is parted from its neighbours before words are looked for
    bool whole_words = false;    // a word that is a token is that token, whatever merges say
};

// A token that is found in a text (a normalised one, where there is byte fallback) before anything is merged.
struct AddedToken {
    uint32_t id;
    // 1: adds no text when it is decoded, and may be text like any other; 2: ends a text, as BpeOptions::end
    // does; 3: both; else 0.
    uint32_t kind;
    static constexpr uint32_t special = 1, ends = 2;
};
static_assert(sizeof(AddedToken) == 8);

// One merge, as the file has it: the pieces left and right become `both`; of all pairs in a text the one of
// the lowest rank goes first, of equal ones the leftmost.
struct BpeMerge {
    uint32_t left, right, both, rank;
};
static_assert(sizeof(BpeMerge) == 16);

// What encoding remembers while it runs: grows with the longest text, and is kept. One thread at a time.
class BpeScratch {
   public:
    explicit BpeScratch(std::pmr::memory_resource* memory) : text(memory), symbols(memory), queue(memory) {}

   private:
    friend class Bpe;
    struct Symbol {
        int32_t id;  // -1: merged into its left neighbour
        uint32_t before, after;
    };
    struct Candidate {
        uint32_t rank, at, both;
        // Whether `b` is to be merged before `a`: the order of a heap whose top goes first.
        friend bool operator<(const Candidate& a, const Candidate& b) {
            return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
        }
    };
    static constexpr uint32_t none = UINT32_MAX;
    void push(int32_t id) {
        const auto at = static_cast<uint32_t>(symbols.size());
        symbols.push_back({id, at == 0 ? none : at - 1, at + 1});
    }
    void end() {
        if (!symbols.empty()) symbols.back().after = none;
    }
    std::pmr::vector<char> text;  // normalised
    std::pmr::vector<Symbol> symbols;
    std::pmr::vector<Candidate> queue;
};

// A const Bpe may be used from any number of threads, each with its own scratch. Vocabulary and merges must
// outlive it. Texts are UTF-8; ill-formed parts count as U+FFFD.
class Bpe {
   public:
    static constexpr size_t longest_text = size_t{1} << 30;  // bytes

    // Throws Error(bad_model) where a merge names no token, does not make what its parts spell, or occurs
    // twice, where pairs are made to collide in the hash table, where a special or added token is out of
    // range, and where a byte-level vocabulary lacks a byte.
    Bpe(const Vocabulary& vocabulary, std::span<const BpeMerge> merges, const BpeOptions& options,
        std::pmr::memory_resource* memory, std::span<const AddedToken> added = {});

    // Stores the first ids.size() ids of the text, the begin token included, and returns how many there are
    // in all. plain_special: the text of a special token is text like any other. Throws
    // Error(invalid_argument) for a text beyond longest_text.
    size_t encode(std::string_view text, bool plain_special, std::span<int32_t> ids,
                  BpeScratch& scratch) const;

    // A piece of text, and a byte that has no place in the vocabulary.
    struct Piece {
        static constexpr size_t longest = 1024;
        std::array<char, longest> storage;
        size_t bytes = 0;
        std::string_view text() const { return {storage.data(), bytes}; }
    };
    // The text that token `id` adds behind `before` (-1: nothing): bytes, perhaps part of a character.
    // Special tokens add none; the first piece of a text lacks the space that encoding put in front.
    void decode(int32_t before, int32_t id, Piece& piece) const;

    const BpeOptions& options() const { return options_; }
    bool is_special(int32_t id) const;
    // Whether a text that is written is complete with this token.
    bool ends_text(int32_t id) const;

   private:
    void insert(uint32_t merge);
    const BpeMerge* find(int32_t left, int32_t right) const;
    void normalise(std::string_view text, BpeScratch& scratch) const;
    void add_symbols(std::string_view text, BpeScratch& scratch) const;
    void merge(BpeScratch& scratch) const;
    void push_pair(uint32_t left, BpeScratch& scratch) const;
    void encode_segment(std::string_view text, BpeScratch& scratch, IdSink& sink) const;
    void push_merged(BpeScratch& scratch, IdSink& sink) const;
    size_t find_special(std::string_view text, bool plain_special, size_t& at) const;
    void open_byte_fallback();
    void open_byte_level();
    void add_added(std::span<const AddedToken> added);
    void encode_words(std::string_view text, BpeScratch& scratch, IdSink& sink) const;
    void encode_word(std::string_view word, BpeScratch& scratch, IdSink& sink) const;

    const Vocabulary* vocabulary_;
    std::span<const BpeMerge> merges_;
    BpeOptions options_;
    std::array<int32_t, 256> bytes_{};  // the tokens <0x00> to <0xFF>, or the bytes themselves; -1: absent
    struct Special {
        std::string text;  // normalised
        int32_t id;
        bool special = true, ends = false;
    };
    std::vector<Special> specials_;     // longest first
    std::vector<int32_t> special_ids_;  // sorted: asked of every token, and Llama 3 has 256
    std::array<bool, 256> begins_special_{};
    std::pmr::vector<uint32_t> slots_;  // 0: empty, else a merge's number + 1
};

}  // namespace espalier
