// Damaged files: every truncation, every byte of header and directory, and random damage. Nothing may
// crash; with the hashes made right again a damaged file is refused, or it is a model that runs.
#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "runtime/context.h"
#include "runtime/model.h"
#include "tests/format/patch.h"
#include "tests/tiny_model.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#endif

namespace espalier::test {
namespace {

const AlignedBytes& model() {
    static const AlignedBytes bytes = tiny_model();
    return bytes;
}

// Refused with one line, or opened.
bool opens(std::span<const std::byte> bytes) {
    try {
        ModelFile::from_memory(bytes);
        return true;
    } catch (const Error& error) {
        const std::string_view message = error.what();
        REQUIRE(message.starts_with("model in memory: "));
        REQUIRE(message.find('\n') == std::string_view::npos);
        return false;
    }
}

// Opens, prepares, tokenizes and runs; false where some step refuses. Anything else is a defect.
bool runs(std::span<const std::byte> bytes) {
    try {
        ModelOptions options;
        options.backend = "native";
        const auto prepared = Model::from_memory(bytes, options);
        ContextOptions inner;
        inner.max_tokens = 32;
        inner.max_sequences = 4;
        Context context(*prepared, inner);
        const auto tokens = context.tokenize("The tree, \xc3\xa9 leafs!", "a b");
        context.embed(tokens.batch());
        for (uint32_t head = 0; head < prepared->spec().heads.size(); ++head)
            context.score(tokens.batch(), head);
        return true;
    } catch (const Error& error) {
        const std::string_view message = error.what();
        REQUIRE(!message.empty());
        REQUIRE(message.find('\n') == std::string_view::npos);
        return false;
    }
}

uint64_t end_of_directory() {
    layout::FileHeader header;
    std::memcpy(&header, model().span().data(), sizeof(header));
    return header.header_bytes + header.directory_bytes;
}

constexpr unsigned char patterns[] = {0x01, 0x80, 0xff, 0x10};

}  // namespace

TEST_CASE("the undamaged model runs") {
    CHECK(runs(model().span()));
}

// The bytes past the cut are poisoned: reading one is an error that the address sanitizer shows.
TEST_CASE("truncated at every length") {
    AlignedBytes bytes = copy_of(model().span());
    const size_t size = bytes.span().size();
    size_t opened = 0;
    for (size_t length = 0; length < size; ++length) {
        ASAN_POISON_MEMORY_REGION(bytes.span().data() + length, size - length);
        opened += opens(bytes.span().first(length));
        ASAN_UNPOISON_MEMORY_REGION(bytes.span().data(), size);
    }
    CHECK(opened == 0);
}

TEST_CASE("truncated at every length, with a header that says so") {
    AlignedBytes bytes = copy_of(model().span());
    const size_t size = bytes.span().size();
    size_t opened = 0;
    for (size_t length = sizeof(layout::FileHeader); length < size; ++length) {
        auto* header = reinterpret_cast<layout::FileHeader*>(bytes.span().data());
        header->file_bytes = length;
        header->header_hash = 0;
        header->header_hash = hash_bytes(bytes.span().first(sizeof(*header)));
        ASAN_POISON_MEMORY_REGION(bytes.span().data() + length, size - length);
        opened += opens(bytes.span().first(length));
        ASAN_UNPOISON_MEMORY_REGION(bytes.span().data(), size);
    }
    CHECK(opened == 0);
}

TEST_CASE("a file that is too long") {
    for (const size_t more : {size_t{1}, size_t{63}, size_t{64}, size_t{65536}}) {
        AlignedBytes longer(model().span().size() + more);
        std::memset(longer.span().data(), 0, longer.span().size());
        std::memcpy(longer.span().data(), model().span().data(), model().span().size());
        CHECK(!opens(longer.span()));
        reinterpret_cast<layout::FileHeader*>(longer.span().data())->file_bytes = longer.span().size();
        rehash(longer.span());
        CHECK(!opens(longer.span()));
    }
}

TEST_CASE("every byte of header and directory flipped") {
    AlignedBytes bytes = copy_of(model().span());
    const uint64_t end = round_up(end_of_directory(), 64);
    size_t opened = 0;
    for (uint64_t i = 0; i < end; ++i) {
        for (const unsigned char pattern : patterns) {
            bytes.span()[i] ^= std::byte{pattern};
            opened += opens(bytes.span());
            bytes.span()[i] ^= std::byte{pattern};
        }
    }
    CHECK(opened == 0);
}

TEST_CASE("every byte of header and directory flipped, with hashes that fit") {
    const uint64_t end = round_up(end_of_directory(), 64);
    AlignedBytes bytes = copy_of(model().span());
    size_t ran = 0, refused = 0;
    for (uint64_t i = 0; i < end; ++i) {
        for (const unsigned char pattern : patterns) {
            bytes.span()[i] ^= std::byte{pattern};
            rehash(bytes.span());
            if (opens(bytes.span()) && runs(bytes.span())) {
                ++ran;
            } else {
                ++refused;
            }
            std::memcpy(bytes.span().data(), model().span().data(), end);
        }
    }
    MESSAGE("of ", ran + refused, " damaged files ", ran, " still make a model that runs");
    CHECK(ran > 0);
    CHECK(refused > ran);
}

TEST_CASE("random damage to several bytes, with hashes that fit") {
    std::mt19937_64 random(2024);
    const uint64_t end = end_of_directory(), payload_end = model().span().size() - layout::end_padding;
    AlignedBytes bytes = copy_of(model().span());
    size_t ran = 0;
    for (int round = 0; round < 6000; ++round) {
        const uint64_t reach = round % 3 == 0 ? payload_end : end;
        for (uint64_t edits = 1 + random() % 6; edits > 0; --edits) {
            const uint64_t place = random() % reach;
            const uint64_t values[] = {0, 1, 0xff, 0x7f, 0x80, random() & 0xff};
            const uint64_t length = std::min<uint64_t>(uint64_t{1} << random() % 4, reach - place);
            std::memset(bytes.span().data() + place, static_cast<int>(values[random() % 6]), length);
        }
        if (round % 2 == 0) std::memcpy(bytes.span().data(), model().span().data(), 40);  // a sound header
        rehash(bytes.span());
        if (opens(bytes.span())) ran += runs(bytes.span());
        std::memcpy(bytes.span().data(), model().span().data(), payload_end);
    }
    MESSAGE(ran, " of 6000 ran");
}

// Weights and vocabulary are not hashed on opening: any numbers may stand there.
TEST_CASE("random bytes in the payload") {
    std::mt19937_64 random(7);
    Patch patch(model().span());
    const uint64_t begin = patch.header().payload_offset, end = model().span().size() - layout::end_padding;
    const uint64_t vocabulary = patch.tensor("tokenizer.offsets").offset;
    size_t ran = 0;
    for (int round = 0; round < 500; ++round) {
        const uint64_t reach = round % 2 == 0 ? vocabulary : end;
        const uint64_t first = begin + random() % (reach - begin);
        const uint64_t length = std::min<uint64_t>(random() % 2000, reach - first);
        for (uint64_t i = first; i < first + length; ++i)
            patch.bytes()[i] = static_cast<std::byte>(random());
        ran += runs(patch.bytes());
        std::memcpy(patch.bytes().data(), model().span().data(), end);
    }
    CHECK(ran >= 250);
}

}  // namespace espalier::test
