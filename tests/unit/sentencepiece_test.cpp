// SentencePiece models against the package `sentencepiece` (tests/scripts/sentencepiece_expectations.py), and
// in a build with it against libsentencepiece; what is refused, and how.
#include <doctest/doctest.h>

#include <fstream>

#include "base/error.h"
#include "runtime/model.h"
#include "runtime/tokenizer/unicode.h"
#include "tests/imported_tokenizer.h"
#include "tests/temporary_folder.h"
#if defined(ESPALIER_SENTENCEPIECE)
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#endif

namespace espalier::test {
namespace {

const std::string folder = ESPALIER_TEST_DATA "/sentencepiece/";

AlignedBytes model_of(const std::string& path, uint32_t vocabulary = 710) {
    return model_with_tokenizer(vocabulary, [&](Import& import) { import_sentencepiece(import, path); });
}

std::string refusal(const std::string& file, uint32_t vocabulary = 710) {
    const TemporaryFolder temporary;
    write_file(temporary.path("t.model"), file);
    try {
        const AlignedBytes bytes = model_of(temporary.path("t.model"), vocabulary);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}
bool refused(const std::string& file, const std::string& words) {
    const std::string said = refusal(file);
    INFO(said);
    CHECK(said.find("t.model: ") != std::string::npos);
    CHECK(said.find('\n') == std::string::npos);
    return said.find(words) != std::string::npos;
}

// A field of a protocol buffer, less than 128 bytes long, or a number.
std::string field(int number, const std::string& value) {
    return std::string{static_cast<char>(number * 8 + 2), static_cast<char>(value.size())} + value;
}
std::string field(int number, int value) {
    std::string key(1, static_cast<char>(number * 8 % 128 + (number > 15 ? 128 : 0)));
    if (number > 15) key += static_cast<char>(number * 8 / 128);
    return key + static_cast<char>(value);
}

}  // namespace

TEST_CASE("ids are those of sentencepiece") {
    for (const char* name : {"llama", "symbols", "plain"}) {
        const AlignedBytes bytes = model_of(folder + name + ".model");
        const auto model = Model::from_memory(bytes.span(), {});
        std::ifstream file(folder + name + ".jsonl");
        size_t texts = 0;
        for (std::string line; std::getline(file, line); ++texts) {
            INFO(std::string(name), ": ", line.substr(0, 200));
            const auto row = nlohmann::json::parse(line);
            CHECK(encoded(*model, row["text"].get<std::string>()) == row["ids"].get<std::vector<int32_t>>());
        }
        CHECK(texts > 150);
    }
}

TEST_CASE("ids become the text again, with what SentencePiece keeps of its spaces") {
    const AlignedBytes llama = model_of(folder + "llama.model"), symbols = model_of(folder + "symbols.model");
    const auto all = Model::from_memory(llama.span(), {}), fewer = Model::from_memory(symbols.span(), {});
    for (const char* text : {"a tree", "  two  spaces ", "x\n\ty", "\xf0\x9f\x98\x80 caf\xc3\xa9"})
        CHECK(decoded(*all, encoded(*all, text)) == text);
    CHECK(decoded(*fewer, encoded(*fewer, "  two  spaces ")) == "two spaces");
    CHECK(decoded(*fewer, encoded(*fewer, "<|user|>a  b<|end|>")) == "<|user|>a b<|end|>");
}

TEST_CASE("models that would give other ids are refused") {
    const std::string good = read_file(folder + "llama.model");
    CHECK(refusal(good).empty());
    CHECK(refused(read_file(folder + "unigram.model"), "model_type: expected BPE, found unigram"));
    // Of a field that stands there twice the later counts; messages are joined.
    CHECK(refused(good + field(2, field(3, 4)), "expected BPE, found char"));
    CHECK(refused(good + field(2, field(24, 1)), "treat_whitespace_as_suffix: expected false"));
    CHECK(refused(good + field(3, field(1, "nmt_nfkc") + field(2, "rules")),
                  "identity (characters stay as "
                  "they are), found nmt_nfkc"));
    CHECK(refused(good + field(5, field(2, "rules")), "denormalizer_spec: expected none"));
    CHECK(refused(good + field(1, field(1, "new") + field(3, 5)), "none that is unused, found new"));
    CHECK(refused(good + field(1, field(1, "a b") + field(3, 4)), "none with a space, found a b"));
    CHECK(refused(good + field(1, field(1, "\xc4\xb0\xc4\xb1")), "a piece for every character"));
    CHECK(refused(good + field(1, field(1, "\xc4\xb0") + field(3, 3)), "more than a character each"));
    CHECK(refused(good + field(1, field(1, "<unk>")), "<unk> stands there twice"));
    CHECK(refused(good + field(1, field(1, "")), "piece 700: expected 1 to 1024 bytes"));
    CHECK(refused(good + field(1, field(1, "x") + field(3, 7)), "type 1 to 6"));
    CHECK(refused(good + field(1, field(1, "<?>") + field(3, 2)), "one unknown piece and 256"));
    CHECK(refused(read_file(folder + "plain.model") + field(2, field(35, 1)),
                  "256 pieces of bytes, found 1 and 0"));
    CHECK(refused(read_file(folder + "plain.model") + field(1, field(1, "<0x41>")), "else none of these"));
    CHECK(refusal(good, 600).find("at most 600 pieces (the embedding's rows), found 700 (a tokenizer of "
                                  "another model?)") != std::string::npos);
    const auto other_begin = [&](Import& import) {
        import.spec.tokenizer.begin = 5;
        import_sentencepiece(import, folder + "llama.model");
    };
    CHECK_THROWS_WITH_AS(model_with_tokenizer(710, other_begin),
                         doctest::Contains("piece <s>: expected bos_token_id 5 (config.json), found 1"),
                         Error);
}

TEST_CASE("files that are no models, whole or in part, are refused or read") {
    CHECK(refused("", "expected pieces of SentencePiece, found none"));
    CHECK(refused("{\"version\": 1}", "byte "));
    CHECK(refused(std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), "beyond"));
    CHECK(refused(std::string(20, '\xff'), "at most 10 bytes"));
    CHECK(refused(field(1, 1), "field 1: expected kind 2, found 0"));
    const std::string good = read_file(folder + "plain.model");
    std::mt19937_64 random(7);
    for (size_t i = 0; i < 300; ++i) {
        std::string damaged = good.substr(0, i % 2 == 0 ? good.size() : random() % good.size());
        if (i % 2 == 0) damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
        refusal(damaged);  // any Error, or none
    }
}

#if defined(ESPALIER_SENTENCEPIECE)

namespace {

std::string random_text(std::mt19937_64& random) {
    static const std::vector<std::string> pieces{" ",
                                                 "  ",
                                                 "\xe2\x96\x81",
                                                 "\n",
                                                 "e",
                                                 "t",
                                                 "a",
                                                 "th",
                                                 "tree",
                                                 " layer",
                                                 "0",
                                                 "7",
                                                 ".",
                                                 "<|x|>",
                                                 "<|x|>y",
                                                 "<s>",
                                                 "\xc3\xa9",
                                                 "\xe4\xb8\xad",
                                                 "\xf0\x9f\x98\x80",
                                                 "\xcc\x81",
                                                 "\xe3\x80\x80",
                                                 "\xef\xbf\xbd",
                                                 "Z"};
    std::string text;
    for (size_t i = random() % 40; i > 0; --i) {
        if (random() % 20 != 0) {
            text += pieces[random() % pieces.size()];
            continue;
        }
        char bytes[4];
        char32_t any = static_cast<char32_t>(random() % 0x30000);
        if (any >= 0xD800 && any < 0xE000) any -= 0x1000;
        text.append(bytes, unicode::encode_utf8(any, bytes));
    }
    return text;
}

}  // namespace

TEST_CASE("ids and texts are those of libsentencepiece, whatever the spaces") {
    std::mt19937_64 random(11);
    const std::string readme = ESPALIER_SOURCE_DIR "/README.md";
    for (unsigned kind = 0; kind < 32; ++kind) {
        const auto flag = [&](unsigned bit) { return (kind & bit) != 0 ? "true" : "false"; };
        const TemporaryFolder temporary;
        const std::string options =
            "--model_type=bpe --normalization_rule_name=identity --vocab_size=420 --minloglevel=2 "
            "--user_defined_symbols=<|x|>,<|x|>y --control_symbols=<c> --character_coverage=0.98 --input=" +
            readme + " --model_prefix=" + temporary.path("t") + " --byte_fallback=" + flag(1) +
            " --add_dummy_prefix=" + flag(2) + " --remove_extra_whitespaces=" + flag(4) +
            " --split_by_whitespace=" + flag(8);
        CAPTURE(options);
        const auto trained = sentencepiece::SentencePieceTrainer::Train(options);
        INFO(trained.ToString());
        REQUIRE(trained.ok());
        // The trainer makes none whose spaces stay as they are.
        if ((kind & 16) != 0)
            write_file(temporary.path("t.model"),
                       read_file(temporary.path("t.model")) + field(3, field(5, 0)));
        sentencepiece::SentencePieceProcessor theirs;
        REQUIRE(theirs.Load(temporary.path("t.model")).ok());
        const AlignedBytes bytes = model_of(temporary.path("t.model"));
        const auto model = Model::from_memory(bytes.span(), {});
        for (size_t i = 0; i < 500; ++i) {
            const std::string text = random_text(random);
            INFO(text);
            const auto ids = encoded(*model, text);
            REQUIRE(ids == theirs.EncodeAsIds(text));
            // Theirs puts " ⁇ " where a token is unknown, drops every space that a text has left in front,
            // and makes spaces of underlines that stand for none.
            const bool alike = std::find(ids.begin(), ids.end(), theirs.unk_id()) == ids.end() &&
                               ((kind & (4 | 16)) == 0 || text.find("\xe2\x96\x81") == std::string::npos);
            if (alike) REQUIRE(decoded(*model, ids) == theirs.DecodeIds(ids));
        }
    }
}

#endif

}  // namespace espalier::test
