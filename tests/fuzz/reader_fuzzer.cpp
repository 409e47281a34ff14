// Any bytes as a model file, through every stage that a file which is well hashed can reach: refused with an
// Error, or a model that can be described, verified, tokenizes and runs, and asks for no more memory than its
// file accounts for. Input: model_input.h.
#include <algorithm>
#include <random>

#include "apps/describe.h"
#include "runtime/generate.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/model_input.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace espalier;
using fuzz::require;

// Working memory depends on the tokens asked for; for these few it stays in proportion to the file.
constexpr uint32_t tokens_asked = 24;
constexpr size_t times_the_file = 256;

ContextOptions few_tokens() {
    ContextOptions options;
    options.max_tokens = tokens_asked;
    options.max_sequences = 2;
    return options;
}

void encode(const Model& model, Context& context) {
    int32_t ids[tokens_asked] = {};
    size_t count = std::min<size_t>(4, model.spec().max_positions);
    if (model.spec().tokenizer.kind == TokenizerKind::wordpiece) {
        bool truncated = false;
        uint8_t types[tokens_asked];
        count = context.tokenize("The tree, [MASK] \xc3\xa9 leafs!", "a b", false, ids, types, truncated);
    }
    const uint32_t offsets[2] = {0, static_cast<uint32_t>(count)};
    const Batch batch{{ids, count}, {}, offsets};
    context.embed(batch);
    for (uint32_t head = 0; head < model.spec().heads.size(); ++head)
        require(most_likely(context.score(batch, head)).index < model.spec().heads[head].outputs);
}

void write(Context& context) {
    const GenerateOptions drawn{.max_tokens = 3,
                                .sampler = {.temperature = 1, .top_k = 5, .top_p = 0.9F, .seed = 1}};
    fuzz::accepted([&] { generate(context, "ab c\xff </s>x", drawn, {}); });
    perplexity(context, "abc abc 12 \xc3\xa9");
}

void run(const Model& model) {
    const size_t file = model.file().bytes().size();
    require(Context::arena_bytes(model, few_tokens()) <= times_the_file * file);
    // By default as many tokens as there are learned positions, each of which costs the file a row.
    const bool learned = model.spec().positions == Positions::learned;
    const uint64_t positions = learned ? model.spec().max_positions : 4096;
    require(Context::arena_bytes(model, {}) <= (positions + 512) * file);
    Context context(model, few_tokens());
    if (model.spec().family == Family::decoder) {
        write(context);
    } else {
        encode(model, context);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    const fuzz::Choices choices(data[size - 1]);
    const AlignedBytes bytes = fuzz::file_of(data, size - 1, choices);
    fuzz::accepted([&] {
        ModelOptions options;
        options.isa = name_of(choices.isa());
        options.precision = choices.precision();
        options.backend = "native";
        options.verify = choices.verifies();
        const auto model = Model::from_memory(bytes.span(), options);
        require(!json_text(describe(*model)).empty());
        run(*model);
    });
    return 0;
}

namespace {

// One word of header and directory gets a value that is likely to matter.
void change_word(std::span<uint8_t> directory, std::mt19937& random) {
    const auto word_at = [&](size_t index, uint32_t* write) {
        uint32_t word = 0;
        if (write == nullptr) {
            std::memcpy(&word, directory.data() + index * 4, 4);
        } else {
            std::memcpy(directory.data() + index * 4, write, 4);
        }
        return word;
    };
    const size_t words = directory.size() / 4, index = random() % words;
    const uint32_t old = word_at(index, nullptr), other = word_at(random() % words, nullptr);
    const uint32_t values[] = {
        0,        1,       UINT32_MAX, UINT32_MAX - 1,     INT32_MAX, old + 1,
        old - 1,  old * 2, other,      old ^ 0x80000000u,  old / 2,   old ^ 1u << random() % 32,
        1u << 24, 65536,   0x7f800000, 1u << random() % 32};
    uint32_t value = values[random() % std::size(values)];
    word_at(index, &value);
}

}  // namespace

// Half of the mutations change a word of header or directory, most others bytes of one of the two regions;
// hashes are made to fit nearly always.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
    std::mt19937 random(seed);
    layout::FileHeader header;
    if (size <= sizeof(header) || random() % 16 == 0) return LLVMFuzzerMutate(data, size, max_size);
    std::memcpy(&header, data, sizeof(header));
    const size_t file = size - 1;
    const size_t directory = std::min<uint64_t>(file, header.payload_offset);
    if (directory < sizeof(header)) return LLVMFuzzerMutate(data, size, max_size);
    const unsigned kind = random() % 8;
    if (kind < 5) {
        for (unsigned edits = 1 + random() % 3; edits > 0; --edits)
            change_word({data, directory}, random);
    } else if (kind == 5 || directory == file) {
        LLVMFuzzerMutate(data, directory, directory);
    } else {
        LLVMFuzzerMutate(data + directory, file - directory, file - directory);
    }
    if (random() % 4 == 0) data[file] = static_cast<uint8_t>(random());
    if (random() % 16 != 0) data[file] |= 1;
    return size;
}
