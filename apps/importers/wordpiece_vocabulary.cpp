// vocab.txt and tokenizer_config.json of a BERT folder.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <unordered_map>

#include "apps/importers/bert.h"
#include "apps/importers/vocabulary.h"
#include "base/error.h"

namespace espalier {
namespace {

std::vector<std::string> read_vocabulary(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
        throw Error(Status::io, "%s: cannot open the vocabulary: %s", path.c_str(), std::strerror(errno));
    std::vector<std::string> tokens;
    for (std::string line; std::getline(file, line);) {
        // As Hugging Face's loader: trailing white space is not part of a token.
        while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
            line.pop_back();
        tokens.push_back(std::move(line));
    }
    // An unreadable file, or no memory for a line, ends the loop too.
    if (file.bad()) throw Error(Status::io, "%s: cannot read the vocabulary", path.c_str());
    if (tokens.empty())
        throw Error(Status::bad_model, "%s: expected a token a line, found an empty file", path.c_str());
    return tokens;
}

}  // namespace

void import_wordpiece(Import& import, const std::string& folder, uint32_t max_tokens,
                      std::optional<bool> lowercase) {
    const std::string path = folder + "/vocab.txt";
    auto tokens = read_vocabulary(path);
    WordPieceRules rules;
    rules.lowercase = lowercase.value_or(true);
    std::optional<bool> strip;
    const std::string config_path = folder + "/tokenizer_config.json";
    if (JsonFile::exists(config_path)) {
        const JsonFile config(config_path);
        if (!lowercase) rules.lowercase = config.flag_or("do_lower_case", true);
        rules.split_cjk = config.flag_or("tokenize_chinese_chars", true);
        if (config.has("strip_accents")) strip = config.flag("strip_accents");
    }
    rules.strip_accents = strip.value_or(rules.lowercase);
    add_wordpiece(import, path, std::move(tokens), rules, max_tokens);
}

void add_wordpiece(Import& import, const std::string& path, std::vector<std::string> tokens,
                   const WordPieceRules& rules, uint32_t max_tokens) {
    ModelSpec& s = import.spec;
    if (tokens.size() > s.vocabulary)
        throw Error(Status::bad_model, "%s: expected at most %u tokens (the embedding's rows), found %zu",
                    path.c_str(), s.vocabulary, tokens.size());
    if (tokens.size() < s.vocabulary)
        import.notes.push_back("vocabulary: " + std::to_string(s.vocabulary - tokens.size()) +
                               " embedding rows have no token");
    tokens.resize(s.vocabulary);

    TokenizerSpec& t = s.tokenizer;
    t.kind = TokenizerKind::wordpiece;
    t.flags = (rules.clean_text ? tokenizer_flag::clean_text : 0) |
              (rules.split_cjk ? tokenizer_flag::split_cjk : 0) |
              (rules.strip_accents ? tokenizer_flag::strip_accents : 0) |
              (rules.lowercase ? tokenizer_flag::lowercase : 0);
    t.max_tokens = limited_tokens(s, max_tokens);
    t.continuation = "##";

    std::unordered_map<std::string_view, int32_t> ids;
    for (size_t i = 0; i < tokens.size(); ++i)
        ids[tokens[i]] = static_cast<int32_t>(i);
    const auto special = [&](const char* token, bool required) {
        const auto place = ids.find(token);
        if (place != ids.end()) return place->second;
        if (required) throw Error(Status::bad_model, "%s: token %s: missing", path.c_str(), token);
        return -1;
    };
    t.unknown = special("[UNK]", true);
    t.cls = special("[CLS]", true);
    t.sep = special("[SEP]", true);
    t.pad = special("[PAD]", false);
    t.mask = special("[MASK]", false);

    add_vocabulary(import, tokens);
}

}  // namespace espalier
