// A decoder's file with random damage and hashes that fit: it is refused, or writes.
#include <doctest/doctest.h>

#include <random>

#include "base/error.h"
#include "model_format/layout.h"
#include "runtime/generate.h"
#include "tests/format/patch.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {
namespace {

// Whether it runs; what is refused is one line.
bool runs(std::span<const std::byte> bytes) {
    try {
        ModelOptions options;
        options.backend = "native";
        const auto model = Model::from_memory(bytes, options);
        ContextOptions small;
        small.max_tokens = 24;
        if (Context::arena_bytes(*model, small) > 64u << 20) return false;
        Context context(*model, small);
        const GenerateOptions drawn{.max_tokens = 4,
                                    .sampler = {.temperature = 1, .top_k = 5, .top_p = 0.9F, .seed = 1}};
        generate(context, "ab c\xff </s>x", drawn, {});
        perplexity(context, "abc abc abc");
        return true;
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find('\n') == std::string::npos);
        CHECK(error.what()[0] != 0);
        return false;
    }
}

void damage(const AlignedBytes& model) {
    CHECK(runs(model.span()));
    layout::FileHeader header;
    std::memcpy(&header, model.span().data(), sizeof(header));
    const uint64_t directory = header.header_bytes + header.directory_bytes,
                   payload = model.span().size() - layout::end_padding;
    AlignedBytes bytes(model.span().size());
    std::mt19937_64 random(7);
    size_t ran = 0;
    constexpr int rounds = 6000;
    for (int round = 0; round < rounds; ++round) {
        std::memcpy(bytes.span().data(), model.span().data(), bytes.span().size());
        // In turn: any byte, the directory (behind the header), the numbers and tables of the payload.
        const uint64_t low = round % 3 == 2 ? directory : header.header_bytes,
                       high = round % 3 == 1 ? directory : payload;
        for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
            const uint64_t values[] = {0, 1, 0xff, 0x7f, 0x80, random() & 0xff};
            bytes.span()[low + random() % (high - low)] = static_cast<std::byte>(values[random() % 6]);
        }
        rehash(bytes.span());
        ran += runs(bytes.span());
    }
    MESSAGE(ran, " of ", rounds, " ran");
    CHECK(ran > 0);
    CHECK(ran < rounds);
}

}  // namespace

TEST_CASE("damaged decoders are refused, or write") {
    damage(TinyDecoder{.gated_trees = true}.bytes());
}

TEST_CASE("damaged decoders with a byte-level tokenizer are refused, or write") {
    damage(byte_level_decoder());
}

}  // namespace espalier::test
