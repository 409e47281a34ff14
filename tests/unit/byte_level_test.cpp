// Byte-level tokenizers against the package `tokenizers` (tests/scripts/byte_level_expectations.py), from
// tokenizer.json through a model file to ids and back.
#include <doctest/doctest.h>

#include <fstream>
#include <functional>

#include "apps/importers/json.h"
#include "base/error.h"
#include "runtime/model.h"
#include "tests/byte_level_model.h"
#include "tests/temporary_folder.h"

namespace espalier::test {
namespace {

using nlohmann::json;

void check_all(const char* name) {
    const AlignedBytes bytes = byte_level_model_of(name);
    const auto model = Model::from_memory(bytes.span(), {});
    std::ifstream file(std::string(ESPALIER_TEST_DATA "/byte_level/") + name + ".jsonl");
    size_t texts = 0;
    for (std::string line; std::getline(file, line); ++texts) {
        const json row = json::parse(line);
        const auto text = row["text"].get<std::string>();
        INFO(std::string(name), ": ", line.substr(0, 200));
        const auto ids = row["ids"].get<std::vector<int32_t>>();
        CHECK(encoded(*model, text) == ids);
        CHECK(decoded(*model, ids) == row["back"].get<std::string>());
    }
    CHECK(texts > 150);
}

// What a changed tokenizer.json is refused with.
std::string refusal(const char* name, const std::function<void(json&)>& change) {
    const TemporaryFolder folder;
    json value = JsonFile(std::string(ESPALIER_TEST_DATA "/byte_level/") + name + ".json").value();
    change(value);
    const std::string path = folder.path("tokenizer.json");
    std::ofstream(path) << value;
    try {
        const AlignedBytes bytes = byte_level_model(path);
        Model::from_memory(bytes.span(), {});
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

}  // namespace

TEST_CASE("GPT-2's words, Llama 3's, and digits one by one: the ids of the package tokenizers, and back") {
    for (const char* name : {"gpt2", "llama3", "digits"})
        check_all(name);
}

TEST_CASE("special tokens as plain text; ill-formed bytes") {
    const AlignedBytes bytes = byte_level_model_of("gpt2");
    const auto model = Model::from_memory(bytes.span(), {});
    const auto named = encoded(*model, "<|end|>"), plain = encoded(*model, "<|end|>", true);
    CHECK(named.size() == 2);
    CHECK(plain.size() > 2);
    CHECK(decoded(*model, named).empty());
    CHECK(decoded(*model, plain) == "<|end|>");
    CHECK(encoded(*model, "<|tool|>", true).size() == 2);  // no special one
    CHECK(!model->pieces().ends_text(named.back()));
    const AlignedBytes chat = model_with_tokenizer(byte_level_vocabulary, [&](Import& import) {
        import.more_ends = {static_cast<uint32_t>(named.back())};
        import_tokenizer_json(import, ESPALIER_TEST_DATA "/byte_level/gpt2.json");
        CHECK(import.more_ends.empty());
    });
    CHECK(Model::from_memory(chat.span(), {})->pieces().ends_text(named.back()));
    CHECK(decoded(*model, encoded(*model, "a\xff\xc3z")) == "a\xef\xbf\xbd\xef\xbf\xbdz");
}

TEST_CASE("what would give other ids is refused") {
    CHECK(refusal("gpt2", [](json&) {}).empty());
    const auto refused = [](const char* name, const char* words, const std::function<void(json&)>& change) {
        const std::string message = refusal(name, change);
        INFO(message);
        CHECK(message.find(words) != std::string::npos);
        CHECK(message.find('\n') == std::string::npos);
    };
    refused("gpt2", "normalizer", [](json& j) { j["normalizer"] = {{"type", "NFC"}}; });
    refused("gpt2", "pre_tokenizer", [](json& j) { j["pre_tokenizer"] = {{"type", "Whitespace"}}; });
    refused("gpt2", "pre_tokenizer", [](json& j) { j["pre_tokenizer"] = nullptr; });
    refused("llama3", "pre_tokenizer", [](json& j) {
        j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "a"}};
    });
    refused("llama3", "pre_tokenizer",
            [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
    refused("llama3", "use_regex",
            [](json& j) { j["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true; });
    refused("digits", "add_prefix_space",
            [](json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; });
    refused("gpt2", "added_tokens", [](json& j) { j["added_tokens"][0]["lstrip"] = true; });
    refused("gpt2", "token a alone", [](json& j) { j["added_tokens"][0]["content"] = "a"; });
    refused("gpt2", "for every byte", [](json& j) {
        j["model"]["vocab"].erase("\u0120");
        j["model"]["merges"] = json::array({"a b"});
        j["model"]["vocab"]["ab"] = 609;
    });
    refused("gpt2", "decoder", [](json& j) { j["decoder"] = nullptr; });
}

TEST_CASE("one long text of anything takes no time to speak of") {
    const AlignedBytes bytes = byte_level_model_of("llama3");
    const auto model = Model::from_memory(bytes.span(), {});
    for (const char* unit : {"a", " ", "\n ", "1", "'", "\u00e9", "<|en"}) {
        std::string text;
        while (text.size() < 200'000)
            text += unit;
        CHECK(decoded(*model, encoded(*model, text)) == text);
    }
}

}  // namespace espalier::test
