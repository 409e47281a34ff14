// tokenizer.json of a Llama-family folder: byte-pair encoding with byte fallback over whole texts, spaces as
// U+2581; or byte-level, with the words of GPT-2 or Llama 3. Whatever would make other ids than ours is
// refused.
#include <algorithm>
#include <optional>
#include <unordered_map>

#include "apps/importers/llama.h"
#include "apps/importers/vocabulary.h"
#include "base/error.h"
#include "runtime/tokenizer/unicode.h"

namespace espalier {
namespace {

constexpr const char* underline = "\xe2\x96\x81";
constexpr const char* llama3_pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// Byte-level vocabularies write every byte as a character that can be seen: printable bytes of Latin-1 as
// themselves, the others, in order, as the characters from U+0100 on. -1: no such character.
int byte_of(char32_t character) {
    const auto printable = [](unsigned byte) {
        return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
               (byte >= 0xAE && byte <= 0xFF);
    };
    if (character < 0x100) return printable(character) ? static_cast<int>(character) : -1;
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 0x100; ++byte) {
        if (!printable(byte) && next++ == character) return static_cast<int>(byte);
    }
    return -1;
}

// The bytes that a token of a byte-level vocabulary spells.
std::optional<std::string> bytes_of(const std::string& token) {
    std::string bytes;
    for (const char *at = token.data(), *end = at + token.size(); at < end;) {
        const unicode::Decoded decoded = unicode::decode_utf8(at, end);
        at += decoded.bytes;
        const int byte = byte_of(decoded.code_point);
        if (byte < 0) return std::nullopt;
        bytes.push_back(static_cast<char>(byte));
    }
    return bytes;
}

class TokenizerJson {
   public:
    TokenizerJson(Import& import, const std::string& path)
        : import_(import), file_(path), model_(part("model")) {}

    void run() {
        check_model();
        if (byte_level_) {
            read_words();
        } else {
            read_normaliser();
            require(!file_.has("pre_tokenizer"), "pre_tokenizer", "null");
        }
        read_vocabulary();
        if (byte_level_) {
            read_byte_level_added_tokens();
        } else {
            read_added_tokens();
        }
        read_begin();
        check_decoder();
        read_merges();
        add_vocabulary(import_, tokens_);
    }

   private:
    JsonFile part(const char* key) const {
        return {file_.name() + ": " + key, file_.has(key) ? file_.value()[key] : nlohmann::json::object()};
    }
    void require(bool condition, const char* what, const char* expected) const {
        if (!condition)
            throw Error(Status::unsupported, "%s: %s: expected %s, found otherwise", file_.name().c_str(),
                        what, expected);
    }
    static bool is_empty(const JsonFile& entry, const char* key) { return entry.text_or(key, "").empty(); }

    void check_model() {
        require(model_.text("type") == "BPE", "model.type", "BPE");
        byte_level_ = !model_.flag_or("byte_fallback", false);
        require(!model_.has("dropout"), "model.dropout", "null");
        require(is_empty(model_, "continuing_subword_prefix"), "model.continuing_subword_prefix", "null");
        require(is_empty(model_, "end_of_word_suffix"), "model.end_of_word_suffix", "null");
        if (byte_level_) return;
        require(!model_.flag_or("ignore_merges", false), "model.ignore_merges", "false");
        require(model_.flag_or("fuse_unk", false), "model.fuse_unk", "true");
    }

    // ByteLevel, behind Digits or a Split by Llama 3's pattern if there are several.
    void read_words() {
        const char* expected =
            "ByteLevel, alone or behind Digits (one by one) or a Split by Llama 3's pattern";
        require(!file_.has("normalizer"), "normalizer", "null where there is no byte fallback");
        TokenizerSpec& t = import_.spec.tokenizer;
        t.kind = TokenizerKind::byte_level_bpe;
        t.flags = model_.flag_or("ignore_merges", false) ? tokenizer_flag::whole_words : 0;
        const JsonFile whole = part("pre_tokenizer");
        const bool several = whole.text_or("type", "") == "Sequence";
        const auto steps = several ? whole.array("pretokenizers") : nlohmann::json::array({whole.value()});
        for (size_t i = 0; i < steps.size(); ++i) {
            const JsonFile step(whole.name() + "[" + std::to_string(i) + "]", steps[i]);
            const std::string type = step.text_or("type", "");
            const bool last = i + 1 == steps.size();
            if (last) {
                require(type == "ByteLevel", "pre_tokenizer", expected);
                read_byte_level(step, i > 0);
            } else if (type == "Digits") {
                require(i == 0 && step.flag_or("individual_digits", false), "pre_tokenizer", expected);
                t.flags |= tokenizer_flag::single_digits;
            } else {
                const nlohmann::json pattern{{"Regex", llama3_pattern}};
                require(type == "Split" && step.has("pattern") && step.value()["pattern"] == pattern &&
                            step.text_or("behavior", "") == "Isolated" && !step.flag_or("invert", false) &&
                            (t.flags & tokenizer_flag::llama3_words) == 0,
                        "pre_tokenizer", expected);
                t.flags |= tokenizer_flag::llama3_words;
            }
        }
        require(!steps.empty(), "pre_tokenizer", expected);
    }

    void read_byte_level(const JsonFile& step, bool follows) {
        TokenizerSpec& t = import_.spec.tokenizer;
        const bool prefix = step.flag_or("add_prefix_space", true), words = step.flag_or("use_regex", true);
        require(!follows || !prefix, "pre_tokenizer.add_prefix_space", "false behind other pre-tokenizers");
        require(!words || (t.flags & tokenizer_flag::llama3_words) == 0, "pre_tokenizer.use_regex",
                "false behind a Split");
        t.flags |= (prefix ? tokenizer_flag::prefix_space : 0) | (words ? tokenizer_flag::gpt2_words : 0);
    }

    // A space in front, and every space U+2581.
    void read_normaliser() {
        const nlohmann::json prepend{{"type", "Prepend"}, {"prepend", underline}},
            replace{{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", underline}};
        const JsonFile normaliser = part("normalizer");
        const auto list = normaliser.text_or("type", "") == "Sequence" ? normaliser.array("normalizers")
                                                                       : nlohmann::json::array();
        const bool both = list == nlohmann::json::array({prepend, replace});
        require(both || list == nlohmann::json::array({replace}), "normalizer",
                "a Sequence of Prepend U+2581 and Replace \" \" by U+2581");
        TokenizerSpec& t = import_.spec.tokenizer;
        t.kind = TokenizerKind::byte_fallback_bpe;
        t.flags = tokenizer_flag::underlined_space | (both ? tokenizer_flag::prefix_space : 0);
    }

    void read_vocabulary() {
        const uint32_t rows = import_.spec.vocabulary;
        const auto& vocabulary =
            model_.value().contains("vocab") ? model_.value()["vocab"] : nlohmann::json();
        if (!vocabulary.is_object() || vocabulary.empty() || vocabulary.size() > rows)
            throw Error(Status::bad_model,
                        "%s: model.vocab: expected 1 to %u tokens (the embedding's rows), found %zu",
                        file_.name().c_str(), rows, vocabulary.size());
        tokens_.resize(rows);
        for (const auto& [token, id] : vocabulary.items()) {
            if (!id.is_number_unsigned() || id.get<uint64_t>() >= rows || token.empty() ||
                !tokens_[id.get<size_t>()].empty())
                throw Error(Status::bad_model,
                            "%s: model.vocab: token %.60s: expected an id below %u of its own, found %s",
                            file_.name().c_str(), token.c_str(), rows, id.dump().c_str());
            tokens_[id.get<size_t>()] = byte_level_ ? spelled(token) : token;
            ids_.emplace(token, id.get<uint32_t>());
        }
        if (vocabulary.size() < rows)
            import_.notes.push_back("vocabulary: " + std::to_string(rows - vocabulary.size()) +
                                    " embedding rows have no token");
        TokenizerSpec& t = import_.spec.tokenizer;
        if (model_.has("unk_token")) t.unknown = static_cast<int32_t>(id_of(model_.text("unk_token")));
    }

    // Added tokens may stand in model.vocab as they are.
    static std::string spelled(const std::string& token) { return bytes_of(token).value_or(token); }

    uint32_t id_of(const std::string& token) const {
        const auto place = ids_.find(token);
        if (place == ids_.end())
            throw Error(Status::bad_model,
                        "%s: token %.60s: expected it in model.vocab, found none of that text",
                        file_.name().c_str(), token.c_str());
        return place->second;
    }

    // Special tokens that are named in a text are found where the normalised text holds their own.
    void read_added_tokens() {
        if (!file_.has("added_tokens")) return;
        TokenizerSpec& t = import_.spec.tokenizer;
        const auto& entries = file_.array("added_tokens");
        for (size_t i = 0; i < entries.size(); ++i) {
            const JsonFile entry(file_.name() + ": added_tokens[" + std::to_string(i) + "]", entries[i]);
            const auto id = static_cast<int32_t>(id_of(entry.text("content")));
            const bool plain = entry.flag_or("special", false) && entry.flag_or("normalized", false) &&
                               !entry.flag_or("single_word", false) && !entry.flag_or("lstrip", false) &&
                               !entry.flag_or("rstrip", false);
            require(plain && (id == t.unknown || id == t.begin || id == t.end), "added_tokens",
                    "the unknown, begin and end tokens alone, special and normalized");
        }
        if (!entries.empty()) t.flags |= tokenizer_flag::named_specials;
    }

    // Added tokens need not be in model.vocab: Llama 3's are not.
    void read_byte_level_added_tokens() {
        if (!file_.has("added_tokens")) return;
        const auto& entries = file_.array("added_tokens");
        std::vector<uint32_t> added;
        for (size_t i = 0; i < entries.size(); ++i) {
            const JsonFile entry(file_.name() + ": added_tokens[" + std::to_string(i) + "]", entries[i]);
            const std::string content = entry.text("content");
            const auto id = static_cast<uint32_t>(entry.count("id", 0, import_.spec.vocabulary - 1));
            const auto place = ids_.find(content);
            require(!content.empty() && !entry.flag_or("single_word", false) &&
                        !entry.flag_or("lstrip", false) && !entry.flag_or("rstrip", false),
                    "added_tokens", "a text, and neither single_word nor lstrip nor rstrip");
            if (place == ids_.end() ? !tokens_[id].empty() : place->second != id)
                throw Error(Status::bad_model, "%s: expected id %u to be of token %.60s alone, found another",
                            entry.name().c_str(), id, content.c_str());
            tokens_[id] = content;
            ids_.emplace(content, id);
            const bool ends = std::erase(import_.more_ends, id) > 0;
            added.insert(added.end(), {id, (entry.flag_or("special", false) ? AddedToken::special : 0) |
                                               (ends ? AddedToken::ends : 0)});
        }
        if (added.empty()) return;
        import_.spec.tokenizer.flags |= tokenizer_flag::added_tokens;
        add_added_tokens(import_, added);
    }

    // Whether a text begins with a token of its own.
    void read_begin() {
        if (!file_.has("post_processor")) return;
        JsonFile processor = part("post_processor");
        if (byte_level_ && processor.text_or("type", "") == "Sequence") {
            const auto& steps = processor.array("processors");
            require(steps.size() == 2 && steps[0].is_object() && steps[0].value("type", "") == "ByteLevel",
                    "post_processor", "a Sequence of ByteLevel and TemplateProcessing");
            processor = JsonFile(processor.name() + "[1]", steps[1]);
        }
        if (byte_level_ && processor.text_or("type", "") == "ByteLevel") return;  // it moves offsets alone
        require(processor.text("type") == "TemplateProcessing", "post_processor", "TemplateProcessing");
        const auto& single = processor.array("single");
        const auto is = [&](size_t i, const char* kind) {
            return i < single.size() && single[i].is_object() && single[i].contains(kind);
        };
        if (single.size() == 1 && is(0, "Sequence")) return;
        require(single.size() == 2 && is(0, "SpecialToken") && is(1, "Sequence"), "post_processor.single",
                "one special token and the text");
        const JsonFile special(file_.name() + ": post_processor.single[0]", single[0]["SpecialToken"]);
        TokenizerSpec& t = import_.spec.tokenizer;
        const auto begin = static_cast<int32_t>(id_of(special.text("id")));
        if (t.begin >= 0 && t.begin != begin)
            throw Error(Status::bad_model, "%s: expected bos_token_id %d (config.json), found %d",
                        special.name().c_str(), t.begin, begin);
        t.begin = begin;
        t.flags |= tokenizer_flag::add_begin;
    }

    void check_decoder() const {
        const JsonFile decoder = part("decoder");
        if (byte_level_) {
            require(decoder.text_or("type", "") == "ByteLevel", "decoder", "ByteLevel");
            return;
        }
        std::string types;
        if (decoder.text_or("type", "") == "Sequence") {
            for (const auto& entry : decoder.array("decoders"))
                types += entry.is_object() ? entry.value("type", "?") + " " : "? ";
        }
        require(types == "Replace ByteFallback Fuse Strip " || types == "Replace ByteFallback Fuse ",
                "decoder", "a Sequence of Replace, ByteFallback, Fuse and Strip");
    }

    // "left right", or a list of the two. Of a pair that occurs twice the later counts, as in `tokenizers`.
    void read_merges() {
        const auto& entries = model_.array("merges");
        if (entries.empty())
            throw Error(Status::bad_model, "%s: model.merges: expected one at least, found none",
                        file_.name().c_str());
        std::unordered_map<uint64_t, BpeMerge> by_pair;
        for (uint32_t rank = 0; rank < entries.size(); ++rank) {
            const auto [left, right] = pair_of(entries[rank], rank);
            const uint32_t l = id_of(left), r = id_of(right);
            by_pair[uint64_t{l} << 32 | r] = {l, r, id_of(left + right), rank};
        }
        std::vector<BpeMerge> merges;
        merges.reserve(by_pair.size());
        for (const auto& [pair, merge] : by_pair)
            merges.push_back(merge);
        std::sort(merges.begin(), merges.end(),
                  [](const BpeMerge& a, const BpeMerge& b) { return a.rank < b.rank; });
        add_merges(import_, merges);
    }
    std::pair<std::string, std::string> pair_of(const nlohmann::json& entry, uint32_t rank) const {
        if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string())
            return {entry[0].get<std::string>(), entry[1].get<std::string>()};
        const std::string text = entry.is_string() ? entry.get<std::string>() : "";
        const size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
            throw Error(Status::bad_model, "%s: model.merges: merge %u: expected two tokens, found %.60s",
                        file_.name().c_str(), rank, entry.dump().c_str());
        return {text.substr(0, space), text.substr(space + 1)};
    }

    Import& import_;
    JsonFile file_, model_;
    bool byte_level_ = false;
    std::vector<std::string> tokens_;                // a byte-level vocabulary's: the bytes they spell
    std::unordered_map<std::string, uint32_t> ids_;  // by their text in the file
};

}  // namespace

void import_tokenizer_json(Import& import, const std::string& path) {
    TokenizerJson(import, path).run();
}

}  // namespace espalier
