// tokenizer.json where it says what vocab.txt and BERT's rules say; anything else would give other ids.
#include <algorithm>

#include "apps/importers/bert.h"
#include "base/error.h"

namespace espalier {
namespace {

const nlohmann::json& member(const nlohmann::json& value, const char* key) {
    static const nlohmann::json none;
    return value.is_object() && value.contains(key) ? value[key] : none;
}

// "Sequence of NFD, Lowercase", or "none".
std::string steps(const nlohmann::json& step, const char* list) {
    if (!step.is_object()) return "none";
    std::string type = step.value("type", "?");
    if (!member(step, list).is_array()) return type;
    std::string names;
    for (const auto& one : step[list])
        names += (names.empty() ? "" : ", ") + steps(one, list);
    return type + " of " + names;
}

// "[CLS] A [SEP]"
std::string template_of(const nlohmann::json& processor) {
    if (steps(processor, "processors") == "BertProcessing") {
        const auto text = [&](const char* key) {
            const auto& pair = member(processor, key);
            return pair.is_array() && !pair.empty() && pair[0].is_string() ? pair[0].get<std::string>() : "?";
        };
        return text("cls") + " A " + text("sep");
    }
    std::string all;
    for (const auto& piece : member(processor, "single")) {
        const auto& special = member(member(piece, "SpecialToken"), "id");
        all += (all.empty() ? "" : " ") + (special.is_string() ? special.get<std::string>() : "A");
    }
    return all.empty() ? "none" : all;
}

// What of the file the runtime's WordPiece has no form for; "" where there is nothing.
std::string foreign_to_bert(const nlohmann::json& file) {
    const auto differs = [](const char* what, const std::string& found, const char* expected) {
        return found == expected ? ""
                                 : std::string(what) + ": expected " + expected + ", found " + found + "; ";
    };
    const auto& model = member(file, "model");
    const auto word = [&](const char* key) {
        const auto& value = member(model, key);
        return value.is_string() ? value.get<std::string>() : value.dump();
    };
    std::string all =
        differs("model", steps(model, ""), "WordPiece") + differs("unk_token", word("unk_token"), "[UNK]") +
        differs("continuing_subword_prefix", word("continuing_subword_prefix"), "##") +
        differs("max_input_chars_per_word", word("max_input_chars_per_word"), "100") +
        differs("normalizer", steps(member(file, "normalizer"), "normalizers"), "BertNormalizer") +
        differs("pre_tokenizer", steps(member(file, "pre_tokenizer"), "pretokenizers"), "BertPreTokenizer") +
        differs("post_processor", template_of(member(file, "post_processor")), "[CLS] A [SEP]");
    for (const auto& token : member(file, "added_tokens")) {
        const auto& content = member(token, "content");
        const std::string text = content.is_string() ? content.get<std::string>() : "?";
        if (text != "[PAD]" && text != "[UNK]" && text != "[CLS]" && text != "[SEP]" && text != "[MASK]")
            all += "added_tokens: expected BERT's five, found " + text + " too; ";
    }
    if (!all.empty()) all.erase(all.size() - 2);
    return all;
}

}  // namespace

std::string import_wordpiece_json(Import& import, const std::string& path, uint32_t max_tokens) {
    const JsonFile file(path);
    std::string foreign = foreign_to_bert(file.value());
    if (!foreign.empty()) return foreign;
    const auto& vocabulary = file.value()["model"]["vocab"];
    const uint32_t rows = import.spec.vocabulary;
    if (!vocabulary.is_object() || vocabulary.empty() || vocabulary.size() > rows)
        throw Error(Status::bad_model,
                    "%s: model.vocab: expected 1 to %u tokens (the embedding's rows), found %zu",
                    path.c_str(), rows, vocabulary.size());
    std::vector<std::string> tokens(rows);
    size_t used = 0;  // up to the last token
    for (const auto& [token, id] : vocabulary.items()) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() >= rows || token.empty() ||
            !tokens[id.get<size_t>()].empty())
            throw Error(Status::bad_model,
                        "%s: model.vocab: token %.60s: expected an id below %u of its own, found %s",
                        path.c_str(), token.c_str(), rows, id.dump().c_str());
        tokens[id.get<size_t>()] = token;
        used = std::max(used, id.get<size_t>() + 1);
    }
    tokens.resize(used);
    const JsonFile normaliser(path + ": normalizer", file.value()["normalizer"]);
    WordPieceRules rules;
    rules.clean_text = normaliser.flag_or("clean_text", true);
    rules.split_cjk = normaliser.flag_or("handle_chinese_chars", true);
    rules.lowercase = normaliser.flag_or("lowercase", true);
    rules.strip_accents = normaliser.flag_or("strip_accents", rules.lowercase);
    add_wordpiece(import, path, std::move(tokens), rules, max_tokens);
    return "";
}

}  // namespace espalier
