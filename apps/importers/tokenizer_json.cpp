// tokenizer.json of a Llama-family folder: byte-pair encoding with byte fallback over whole texts, spaces as
// U+2581. Whatever would make other ids than ours is refused.
#include <algorithm>
#include <unordered_map>

#include "apps/importers/llama.h"
#include "apps/importers/vocabulary.h"
#include "base/error.h"

namespace espalier {
namespace {

constexpr const char* underline = "\xe2\x96\x81";

class TokenizerJson {
   public:
    TokenizerJson(Import& import, const std::string& path)
        : import_(import), file_(path), model_(part("model")) {}

    void run() {
        check_model();
        read_normaliser();
        require(!file_.has("pre_tokenizer"), "pre_tokenizer", "null");
        read_vocabulary();
        read_added_tokens();
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

    void check_model() const {
        require(model_.text("type") == "BPE", "model.type", "BPE");
        require(model_.flag_or("byte_fallback", false), "model.byte_fallback", "true");
        require(!model_.has("dropout"), "model.dropout", "null");
        require(is_empty(model_, "continuing_subword_prefix"), "model.continuing_subword_prefix", "null");
        require(is_empty(model_, "end_of_word_suffix"), "model.end_of_word_suffix", "null");
        require(!model_.flag_or("ignore_merges", false), "model.ignore_merges", "false");
        require(model_.flag_or("fuse_unk", false), "model.fuse_unk", "true");
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
            tokens_[id.get<size_t>()] = token;
            ids_.emplace(token, id.get<uint32_t>());
        }
        if (vocabulary.size() < rows)
            import_.notes.push_back("vocabulary: " + std::to_string(rows - vocabulary.size()) +
                                    " embedding rows have no token");
        TokenizerSpec& t = import_.spec.tokenizer;
        if (model_.has("unk_token")) t.unknown = static_cast<int32_t>(id_of(model_.text("unk_token")));
    }

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

    // Whether a text begins with a token of its own.
    void read_begin() {
        if (!file_.has("post_processor")) return;
        const JsonFile processor = part("post_processor");
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
    std::vector<std::string> tokens_;
    std::unordered_map<std::string, uint32_t> ids_;
};

}  // namespace

void import_tokenizer_json(Import& import, const std::string& path) {
    TokenizerJson(import, path).run();
}

}  // namespace espalier
