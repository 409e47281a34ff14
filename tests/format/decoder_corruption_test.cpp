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

// Every byte a token, two merges, two added tokens.
AlignedBytes byte_level_decoder() {
    std::vector<std::string> pieces;
    pieces.reserve(260);
    for (int byte = 0; byte < 256; ++byte)
        pieces.emplace_back(1, static_cast<char>(byte));
    pieces.insert(pieces.end(), {"ab", "abc", "</s>", "<t>"});
    ModelSpec s = TinyDecoder{}.spec();
    s.vocabulary = static_cast<uint32_t>(pieces.size());
    s.tokenizer = {};
    s.tokenizer.kind = TokenizerKind::byte_level_bpe;
    s.tokenizer.flags = tokenizer_flag::llama3_words | tokenizer_flag::single_digits |
                        tokenizer_flag::whole_words | tokenizer_flag::added_tokens;
    s.tokenizer.max_tokens = s.max_positions;
    s.tokenizer.end = 258;
    auto tensors = random_tensors(s, only(TensorType::f32), 11);
    std::erase_if(tensors, [](const TensorSource& t) { return t.name.starts_with("tokenizer."); });
    add_vocabulary(tensors, pieces);
    tensors.push_back(tensor_of("tokenizer.merges", TensorType::u32, {2, 4},
                                std::vector<uint32_t>{'a', 'b', 256, 0, 256, 'c', 257, 1}));
    tensors.push_back(
        tensor_of("tokenizer.added", TensorType::u32, {2, 2}, std::vector<uint32_t>{258, 1, 259, 0}));
    return model_to_memory(s, std::move(tensors));
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
