// Byte-pair encoding by hand-made merges; what models of other makers give is golden/decoder_shared_test.cpp.
#include "runtime/tokenizer/bpe.h"

#include <doctest/doctest.h>

#include <cstring>

#include "base/error.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {
namespace {

struct Fixture {
    std::vector<uint32_t> offsets{0};
    std::vector<char> bytes;
    std::vector<BpeMerge> merges;
    std::optional<Vocabulary> vocabulary;
    std::pmr::memory_resource* memory = std::pmr::get_default_resource();
    BpeScratch scratch{memory};

    explicit Fixture(const std::vector<std::string>& pieces = tiny_pieces(),
                     const std::vector<uint32_t>& values = tiny_merges()) {
        for (const std::string& piece : pieces) {
            bytes.insert(bytes.end(), piece.begin(), piece.end());
            offsets.push_back(static_cast<uint32_t>(bytes.size()));
        }
        merges.resize(values.size() / 4);
        if (!values.empty()) std::memcpy(merges.data(), values.data(), values.size() * 4);
        vocabulary.emplace(offsets, bytes, memory);
    }
    Bpe bpe(BpeOptions options = {.add_begin = false}) const {
        options.unknown = 0;
        options.begin = 1;
        options.end = 2;
        return {*vocabulary, merges, options, memory};
    }
    std::vector<int32_t> encode(const Bpe& bpe, std::string_view text) {
        std::vector<int32_t> ids(64);
        ids.resize(bpe.encode(text, false, ids, scratch));
        return ids;
    }
    void refuses(const std::string& words) const {
        try {
            bpe();
            FAIL_CHECK("not refused");
        } catch (const Error& error) {
            CHECK(error.status() == Status::bad_model);
            CHECK(std::string(error.what()).find(words) != std::string::npos);
        }
    }
};
using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("the lowest rank first, then what is left of it") {
    Fixture f;
    const Bpe bpe = f.bpe();
    CHECK(f.encode(bpe, "") == Ids{});
    CHECK(f.encode(bpe, "abc") == Ids{10});  // bc before ab, then a + bc
    CHECK(f.encode(bpe, "ababc") == Ids{8, 10});
    CHECK(f.encode(bpe, "cb a") == Ids{7, 6, 11});
    CHECK(f.encode(f.bpe({.add_begin = true, .prefix_space = true}), "a") == Ids{1, 11});
    CHECK(f.encode(f.bpe({.add_begin = true, .prefix_space = true}), "") == Ids{1});
}

TEST_CASE("bytes where there is no piece, and unknown ones in a row are one") {
    Fixture f;
    const Bpe bpe = f.bpe();
    CHECK(f.encode(bpe, "axa") == Ids{5, 3, 5});
    CHECK(f.encode(bpe, "a\xc3\xa9za") == Ids{5, 0, 5});
    CHECK(f.encode(bpe,
                   "a\xff\xc3"
                   "a") == Ids{5, 0, 5});  // ill-formed: U+FFFD twice
    // U+FFFD itself is EF BF BD.
    Fixture bytes({"<unk>", "<s>", "</s>", "<0xEF>", "<0xBF>", "<0xBD>", "a", "b", "ab"}, {6, 7, 8, 0});
    CHECK(bytes.encode(bytes.bpe(), "\xff") == Ids{3, 4, 5});
    CHECK(bytes.encode(bytes.bpe(), "\xef\xbf\xbd") == Ids{3, 4, 5});
}

TEST_CASE("named special tokens, underlined spaces, and text again") {
    const std::string underline = "\xe2\x96\x81";
    Fixture f({"<unk>", "<s>", "</s>", underline, "a", underline + "a", "<", "s", ">", "<0x0A>", "/"},
              {3, 4, 5, 0});
    const BpeOptions options{.prefix_space = true, .underlined_space = true, .named_specials = true};
    const Bpe bpe = f.bpe(options);
    CHECK(f.encode(bpe, "a a") == Ids{1, 5, 5});
    CHECK(f.encode(bpe, "</s>a") == Ids{1, 2, 4});
    CHECK(f.encode(bpe, "a </s>") == Ids{1, 5, 2});
    CHECK(f.encode(bpe, "a</s>") == Ids{1, 5, 6, 10, 7, 8});  // it is named with its space alone
    Ids plain(16);
    plain.resize(bpe.encode("</s>", true, plain, f.scratch));
    CHECK(plain == Ids{1, 3, 6, 10, 7, 8});
    Bpe::Piece piece;
    const auto text = [&](int32_t before, int32_t id) {
        bpe.decode(before, id, piece);
        return std::string(piece.text());
    };
    CHECK(text(1, 5) == "a");
    CHECK(text(5, 5) == " a");
    CHECK(text(5, 9) == "\n");
    CHECK(text(5, 2) == "");
    CHECK(text(5, 99) == "");
}

// Of exactly its size, so that the address sanitizer sees a read past its end.
TEST_CASE("an apostrophe that ends a text is a word") {
    for (const WordRule rule : {WordRule::gpt2, WordRule::llama3}) {
        for (const std::string_view text : {"'", "'r", "'l", "'\xc5"}) {
            const std::vector<char> bytes(text.begin(), text.end());
            CHECK(first_word({bytes.data(), bytes.size()}, rule) >= 1);
        }
    }
}

TEST_CASE("a word that spells a special token is text where special tokens are") {
    std::vector<std::string> pieces;
    for (int byte = 0; byte < 256; ++byte)
        pieces.emplace_back(1, static_cast<char>(byte));
    pieces.insert(pieces.end(), {"cat", "end"});
    const Fixture f(pieces, {});
    BpeOptions options;
    options.add_begin = false;
    options.byte_level = options.whole_words = true;
    const AddedToken end{257, AddedToken::special};
    const Bpe bpe(*f.vocabulary, {}, options, f.memory, {&end, 1});
    BpeScratch scratch(f.memory);
    Ids ids(8);
    const auto encoded = [&](std::string_view text, bool plain) {
        ids.resize(8);
        ids.resize(bpe.encode(text, plain, ids, scratch));
        return ids;
    };
    CHECK(encoded("cat", true) == Ids{256});
    CHECK(encoded("end", true) == Ids{'e', 'n', 'd'});
    CHECK(encoded("end", false) == Ids{257});
}

TEST_CASE("long texts take no time to speak of") {
    Fixture f;
    std::string text;
    for (int i = 0; i < 300000; ++i)
        text += "abcab"[i % 5];
    Ids ids(text.size());
    const size_t count = f.bpe().encode(text, false, ids, f.scratch);
    std::string back;
    for (size_t i = 0; i < count; ++i)
        back += tiny_pieces()[static_cast<size_t>(ids[i])];
    CHECK(back == text);
}

TEST_CASE("merges of another vocabulary are refused") {
    Fixture(tiny_pieces(), {5, 6, 9, 0})
        .refuses("expected a token that its parts 5 and 6 spell, found token 9");
    Fixture(tiny_pieces(), {5, 12, 8, 0}).refuses("expected tokens below 12");
    Fixture(tiny_pieces(), {5, 6, 8, 0, 5, 6, 8, 1}).refuses("occurs twice");
}

}  // namespace espalier::test
