// The tokenizer against what the Hugging Face package says (tests/data/wordpiece), and against inputs made to
// break it. Sentence by sentence on real text: tests/golden/wordpiece_shared_test.cpp.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>

#include "base/error.h"
#include "tests/wordpiece_fixture.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// Counts what reaches the heap.
class CountingResource : public std::pmr::memory_resource {
   public:
    size_t allocations = 0;
    size_t bytes = 0;

   private:
    void* do_allocate(size_t size, size_t alignment) override {
        ++allocations;
        bytes += size;
        return std::pmr::new_delete_resource()->allocate(size, alignment);
    }
    void do_deallocate(void* memory, size_t size, size_t alignment) override {
        std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
    }
    bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

std::vector<int32_t> ids_of(const WordPiece& tokenizer, std::string_view text, bool plain_special = false) {
    TokenizerScratch scratch(std::pmr::get_default_resource());
    std::vector<int32_t> ids(tokenizer.tokenize(text, plain_special, {}, scratch));
    tokenizer.tokenize(text, plain_special, ids, scratch);
    return ids;
}

std::string repeated(std::string_view part, size_t count) {
    std::string text;
    text.reserve(part.size() * count);
    for (size_t i = 0; i < count; ++i)
        text += part;
    return text;
}

template <class Action>
Status status_of(Action action) {
    try {
        action();
    } catch (const Error& error) {
        CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
        return error.status();
    }
    return Status::ok;
}

Status build_status(std::vector<uint32_t> offsets, std::string_view bytes) {
    return status_of([&] { Vocabulary(offsets, bytes, std::pmr::get_default_resource()); });
}

// FNV-1a over the ids of "a" + c + "b" and c for the 256 code points c of a block; sweep() in
// tests/scripts/wordpiece_expectations.py says what exactly is hashed.
uint64_t block_hash(const WordPiece& tokenizer, uint64_t block, TokenizerScratch& scratch) {
    uint64_t hash = Vocabulary::empty_hash;
    const auto extend = [&](char32_t c, const std::string& text) {
        std::array<int32_t, 64> ids;
        const size_t count = tokenizer.tokenize(text, false, ids, scratch);
        REQUIRE(count < ids.size());
        ids[count] = -1;
        for (size_t i = 0; i <= count; ++i) {
            const int32_t own = ids[i] - character_id(c);
            const int32_t hashed = own == 0 || own == 1 ? -2 - own : ids[i];
            for (int shift = 0; shift < 32; shift += 8)
                hash = Vocabulary::extend_hash(hash, static_cast<char>(hashed >> shift));
        }
    };
    for (char32_t c = static_cast<char32_t>(block << 8); c < (block + 1) << 8; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;
        char bytes[4];
        const std::string character(bytes, unicode::encode_utf8(c, bytes));
        extend(c, "a" + character + "b");
        extend(c, character);
    }
    return hash;
}

// Checks every block of the file, and says how many there were.
uint64_t sweep(const std::string& name, const Tokenizer& tokenizer) {
    std::ifstream file(ESPALIER_TEST_DATA "/wordpiece/" + name);
    TokenizerScratch scratch(std::pmr::get_default_resource());
    uint64_t next = 0, first, blocks, expected;
    while (file >> std::hex >> first >> std::dec >> blocks >> std::hex >> expected) {
        REQUIRE(first == next);
        for (; next < first + blocks; ++next)
            CHECK_MESSAGE(block_hash(tokenizer.uncased, next, scratch) == expected, "block ", next);
    }
    return next;
}

}  // namespace

TEST_CASE("a vocabulary finds every token and nothing else") {
    const Vocabulary& vocabulary = bert().vocabulary;
    REQUIRE(vocabulary.size() == 30522);
    size_t lost = 0;
    for (size_t id = 0; id < vocabulary.size(); ++id)
        lost += vocabulary.find(vocabulary.token(id)) != static_cast<int32_t>(id);
    CHECK(lost == 0);
    CHECK(vocabulary.find("") == -1);
    CHECK(vocabulary.find("wordpiec") == -1);
    CHECK(vocabulary.find("##") == -1);
    CHECK(vocabulary.longest_token() == 18);
}

TEST_CASE("of equal tokens the last one counts") {
    const FlatTokens tokens = flat_tokens({"a", "b", "a", "", "b", "a"});
    const Vocabulary vocabulary(tokens.offsets, tokens.bytes, std::pmr::get_default_resource());
    CHECK(vocabulary.find("a") == 5);
    CHECK(vocabulary.find("b") == 4);
    CHECK(vocabulary.find("") == 3);
}

TEST_CASE("a vocabulary with wrong offsets is a bad model") {
    CHECK(build_status({}, "") == Status::bad_model);
    CHECK(build_status({1, 2}, "ab") == Status::bad_model);
    CHECK(build_status({0, 2, 1, 3}, "abc") == Status::bad_model);
    CHECK(build_status({0, 2}, "abc") == Status::bad_model);
    CHECK(build_status({0, 4}, "abc") == Status::bad_model);
    CHECK(build_status(std::vector<uint32_t>(Vocabulary::max_tokens + 2), "") == Status::bad_model);
    CHECK(build_status({0}, "") == Status::ok);
}

TEST_CASE("tokens made to collide are refused, not suffered") {
    // All these differ, and share the part of the hash that chooses the slot.
    constexpr size_t wanted = 600;
    constexpr uint64_t mask = 2047;
    FlatTokens tokens;
    for (uint32_t i = 0; tokens.offsets.size() <= wanted; ++i) {
        const std::string token = std::to_string(i);
        const uint64_t hash = Vocabulary::hash(token);
        if (((hash ^ hash >> 32) & mask) == 0) tokens.add(token);
    }
    CHECK(build_status(tokens.offsets, tokens.bytes) == Status::bad_model);
}

TEST_CASE("options that fit no vocabulary are a bad model") {
    const auto status = [](auto change) {
        WordPieceOptions options = uncased_bert(bert().vocabulary);
        change(options);
        return status_of([&] { WordPiece(bert().vocabulary, options); });
    };
    CHECK(status([](WordPieceOptions& o) { o.pad = o.mask = -1; }) == Status::ok);
    CHECK(status([](WordPieceOptions& o) { o.unknown = -1; }) == Status::bad_model);
    CHECK(status([](WordPieceOptions& o) { o.cls = -2; }) == Status::bad_model);
    CHECK(status([](WordPieceOptions& o) { o.sep = 30522; }) == Status::bad_model);
    CHECK(status([](WordPieceOptions& o) { o.mask = 1 << 30; }) == Status::bad_model);
    CHECK(status([](WordPieceOptions& o) { o.max_word_characters = 5000; }) == Status::bad_model);
    const std::string continuation(256, '#');
    CHECK(status([&](WordPieceOptions& o) { o.continuation = continuation; }) == Status::bad_model);
}

TEST_CASE("sentences, pairs, nasty strings and truncations agree with the package") {
    std::ifstream file(ESPALIER_TEST_DATA "/wordpiece/cases.jsonl");
    REQUIRE(file.good());
    TokenizerScratch scratch(std::pmr::get_default_resource());
    size_t lines = 0;
    for (std::string line; std::getline(file, line); ++lines)
        if (!agrees(read_expectation(line), scratch)) FAIL_CHECK(line.substr(0, 300));
    CHECK(lines == 1504);
}

TEST_CASE("every scalar value agrees with the package, between letters and alone") {
    CHECK(sweep("sweep.txt", bert()) == 0x1100);
}

TEST_CASE("every scalar value is normalised as the package does it") {
    CHECK(sweep("sweep_characters.txt", characters()) == 0x1100);
}

TEST_CASE("ids are counted beyond what is stored, and nothing is written past the end") {
    const std::string text = "one unaffable two";
    const std::vector<int32_t> all = ids_of(bert().uncased, text);
    TokenizerScratch scratch(std::pmr::get_default_resource());
    for (size_t room = 0; room <= all.size() + 1; ++room) {
        std::vector<int32_t> ids(room + 1, -7);
        CHECK(bert().uncased.tokenize(text, false, std::span(ids).first(room), scratch) == all.size());
        CHECK(ids[room] == -7);
        for (size_t i = 0; i < std::min(room, all.size()); ++i)
            CHECK(ids[i] == all[i]);
    }
}

TEST_CASE("encode stores a prefix of the sequence where the spans are short") {
    TokenizerScratch scratch(std::pmr::get_default_resource());
    const auto encode = [&](size_t room, size_t max_length, std::vector<int32_t>& ids,
                            std::vector<uint8_t>& types) {
        ids.assign(room, -7);
        types.assign(room, 9);
        return bert().uncased.encode("one two three", "four five six seven", max_length, false, ids, types,
                                     scratch);
    };
    for (size_t max_length : {size_t{3}, size_t{7}, size_t{8}, WordPiece::no_limit}) {
        std::vector<int32_t> all, ids;
        std::vector<uint8_t> all_types, types;
        const size_t count = encode(20, max_length, all, all_types).count;
        for (size_t room = 0; room <= count; ++room) {
            CHECK(encode(room, max_length, ids, types).count == count);
            CHECK(std::equal(ids.begin(), ids.end(), all.begin()));
            CHECK(std::equal(types.begin(), types.end(), all_types.begin()));
        }
    }
}

TEST_CASE("encode refuses a limit below the special tokens and spans of two lengths") {
    TokenizerScratch scratch(std::pmr::get_default_resource());
    std::vector<int32_t> ids(8);
    std::vector<uint8_t> types(7);
    const auto encode = [&](std::optional<std::string_view> pair, size_t max_length, bool with_types) {
        return status_of([&] {
            const std::span<uint8_t> wanted = with_types ? std::span<uint8_t>(types) : std::span<uint8_t>();
            bert().uncased.encode("a", pair, max_length, false, ids, wanted, scratch);
        });
    };
    CHECK(encode({}, 1, false) == Status::invalid_argument);
    CHECK(encode({}, 2, false) == Status::ok);
    CHECK(encode("b", 2, false) == Status::invalid_argument);
    CHECK(encode("b", 3, false) == Status::ok);
    CHECK(encode("b", 3, true) == Status::invalid_argument);
}

TEST_CASE("ten megabytes of anything take linear time and no memory") {
    constexpr size_t megabytes = 10'000'000;
    const int32_t unknown = bert().vocabulary.find("[UNK]");
    CountingResource memory;
    TokenizerScratch scratch(&memory);
    const auto count = [&](const std::string& text, int32_t& first) {
        return bert().uncased.tokenize(text, false, std::span(&first, 1), scratch);
    };
    int32_t first = -1;
    CHECK(count(repeated("a", megabytes), first) == 1);
    CHECK(first == unknown);
    CHECK(count(repeated("a ", megabytes / 2), first) == megabytes / 2);
    CHECK(count(repeated("!", megabytes), first) == megabytes);
    CHECK(count(std::string(megabytes, '\0'), first) == 0);
    CHECK(count(repeated("\xff", megabytes), first) == 0);
    CHECK(count(repeated("[", megabytes), first) == megabytes);
    CHECK(count(repeated("[SEP", megabytes / 4), first) == megabytes / 2);
    CHECK(count(repeated("中", megabytes / 3), first) == megabytes / 3);
    // Marks that are dropped, marks that stay and are put in order, both after one letter.
    CHECK(count("a" + repeated("\u0301\u0323", megabytes / 4), first) == 1);
    CHECK(first == bert().vocabulary.find("a"));
    CHECK(count("a" + repeated("\u302e\U0001d165\u0301", megabytes / 9), first) == 1);
    CHECK(first == unknown);
    // Words that begin like no token and match at no length.
    CHECK(count(repeated("zq\u302ezqzqzq ", megabytes / 12), first) == megabytes / 12);
    CHECK(memory.bytes < 16384);
}

TEST_CASE("a warm scratch allocates nothing") {
    CountingResource memory;
    TokenizerScratch scratch(&memory);
    std::array<int32_t, 64> ids;
    std::array<uint8_t, 64> types;
    bert().uncased.encode("a", "b", 64, false, ids, types, scratch);
    const size_t warm = memory.allocations;
    const std::string text = "Crème brûlée, 東京 and [MASK] " + repeated("\u302e\u0334", 5000);
    for (int i = 0; i < 3; ++i)
        bert().uncased.encode(text, text, 64, i == 1, ids, types, scratch);
    CHECK(memory.allocations == warm);
}

TEST_CASE("one tokenizer serves many threads") {
    const std::string text = "Unaffable crème brûlée [SEP] 東京 e\u0301\u0323";
    const std::vector<int32_t> expected = ids_of(bert().uncased, text);
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 200; ++i)
                wrong += ids_of(bert().uncased, text) != expected;
        });
    for (std::thread& thread : threads)
        thread.join();
    CHECK(wrong == 0);
}

TEST_CASE("a vocabulary of one's own: other continuation, other special tokens, longest first") {
    const FlatTokens tokens = flat_tokens({"<u>", "<s>", "<s>>", "foo", "@bar", "@b", "f", "@é", ""});
    const Vocabulary vocabulary(tokens.offsets, tokens.bytes, std::pmr::get_default_resource());
    WordPieceOptions options;
    std::string continuation = "@";
    options = {.strip_accents = false, .max_word_characters = 6, .continuation = continuation};
    options.unknown = 0;
    options.cls = 1;
    options.sep = 2;
    options.pad = 8;  // empty: found nowhere
    const WordPiece tokenizer(vocabulary, options);
    continuation = "?";  // was copied
    using Ids = std::vector<int32_t>;
    CHECK(ids_of(tokenizer, "foobar FÉB fooba foobarb") == Ids{3, 4, 6, 7, 5, 0, 0});
    CHECK(ids_of(tokenizer, "<s>>foo<s>f<S>") == Ids{2, 3, 1, 6, 0, 0, 0});
    CHECK(ids_of(tokenizer, "<s>foo", true) == Ids{0, 0, 0, 3});
}
