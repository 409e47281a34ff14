// tokenizer.model of SentencePiece (its src/sentencepiece_model.proto): pieces that merge by score, with byte
// fallback or an unknown token. Our own merges then give SentencePiece's ids; what would give others is
// refused.
#include <array>
#include <cmath>
#include <cstdio>
#include <unordered_map>

#include "apps/importers/llama.h"
#include "apps/importers/protobuf.h"
#include "apps/importers/scored_merges.h"
#include "apps/importers/sentencepiece_check.h"
#include "apps/importers/vocabulary.h"
#include "base/error.h"
#include "runtime/model.h"
#include "runtime/tokenizer/unicode.h"

namespace espalier {
namespace {

enum class PieceType : uint64_t { normal = 1, unknown, control, user_defined, unused, byte };

struct SentencePieceModel {
    std::vector<std::string> texts;
    std::vector<float> scores;
    std::vector<PieceType> types;
    uint64_t kind = 1;  // trainer_spec.model_type
    bool suffix_space = false, byte_fallback = false;
    bool prefix_space = true, single_spaces = true, underlined_space = true;
    std::string begin_piece = "<s>", normaliser;
    size_t rules_bytes = 0, output_rules_bytes = 0;  // precompiled rules that change characters
};

class SentencePieceReader {
   public:
    explicit SentencePieceReader(const std::string& path)
        : path_(path), file_(path.c_str(), true, std::pmr::get_default_resource()) {}

    SentencePieceModel read() {
        const auto bytes = file_.bytes();
        ProtobufReader fields(path_, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        while (fields.next()) {
            if (fields.field() == 1) read_piece(fields.bytes());
            if (fields.field() == 2) read_trainer(fields.bytes());
            if (fields.field() == 3) read_normaliser(fields.bytes());
            if (fields.field() == 5) read_denormaliser(fields.bytes());
        }
        if (model_.texts.empty())
            throw Error(Status::bad_model, "%s: expected pieces of SentencePiece, found none", path_.c_str());
        return std::move(model_);
    }

   private:
    void read_piece(std::string_view bytes) {
        ProtobufReader fields(path_ + ": piece " + std::to_string(model_.texts.size()), bytes);
        std::string text;
        float score = 0;
        uint64_t type = 1;
        while (fields.next()) {
            if (fields.field() == 1) text = fields.bytes();
            if (fields.field() == 2) score = fields.number();
            if (fields.field() == 3) type = fields.integer();
        }
        if (text.empty() || text.size() > Bpe::Piece::longest || !std::isfinite(score) || type < 1 ||
            type > 6)
            throw Error(Status::bad_model,
                        "%s: piece %zu: expected 1 to %zu bytes, a finite score and type 1 to 6, found %zu "
                        "bytes, %g and %llu",
                        path_.c_str(), model_.texts.size(), Bpe::Piece::longest, text.size(),
                        static_cast<double>(score), static_cast<unsigned long long>(type));
        model_.texts.push_back(std::move(text));
        model_.scores.push_back(score);
        model_.types.push_back(static_cast<PieceType>(type));
    }
    void read_trainer(std::string_view bytes) {
        ProtobufReader fields(path_ + ": trainer_spec", bytes);
        while (fields.next()) {
            if (fields.field() == 3) model_.kind = fields.integer();
            if (fields.field() == 24) model_.suffix_space = fields.flag();
            if (fields.field() == 35) model_.byte_fallback = fields.flag();
            if (fields.field() == 46) model_.begin_piece = fields.bytes();
        }
    }
    void read_normaliser(std::string_view bytes) {
        ProtobufReader fields(path_ + ": normalizer_spec", bytes);
        while (fields.next()) {
            if (fields.field() == 1) model_.normaliser = fields.bytes();
            if (fields.field() == 2) model_.rules_bytes = fields.bytes().size();
            if (fields.field() == 3) model_.prefix_space = fields.flag();
            if (fields.field() == 4) model_.single_spaces = fields.flag();
            if (fields.field() == 5) model_.underlined_space = fields.flag();
        }
    }
    void read_denormaliser(std::string_view bytes) {
        ProtobufReader fields(path_ + ": denormalizer_spec", bytes);
        while (fields.next()) {
            if (fields.field() == 2) model_.output_rules_bytes = fields.bytes().size();
        }
    }

    std::string path_;
    MappedFile file_;
    SentencePieceModel model_;
};

// The checked model as ours.
class SentencePieceImport {
   public:
    SentencePieceImport(Import& import, std::string path, SentencePieceModel model)
        : import_(import), path_(std::move(path)), m_(std::move(model)) {}

    void run() {
        refuse_variants();
        check_pieces();
        check_characters();
        ScoredPieces mergeable{m_.texts, m_.scores};
        std::vector<uint32_t> added;
        for (uint32_t i = 0; i < m_.texts.size(); ++i) {
            if (m_.types[i] != PieceType::normal) mergeable.texts[i].clear();
            if (m_.types[i] == PieceType::user_defined) added.insert(added.end(), {i, 0});
            // No text makes these, and they make none.
            if (m_.types[i] == PieceType::control || m_.types[i] == PieceType::unknown) m_.texts[i].clear();
        }
        const auto merges = scored_merges(mergeable);
        if (merges.empty()) refuse("pieces", "some that merge", "none");
        set_flags(!added.empty());
        m_.texts.resize(import_.spec.vocabulary);
        add_vocabulary(import_, m_.texts);
        add_merges(import_, merges);
        if (!added.empty()) add_added_tokens(import_, added);
#if defined(ESPALIER_SENTENCEPIECE)
        const JoinedTokens all = joined(m_.texts);
        const Vocabulary vocabulary(all.offsets, all.bytes, std::pmr::get_default_resource());
        std::vector<AddedToken> added_tokens;
        for (size_t i = 0; i < added.size(); i += 2)
            added_tokens.push_back({added[i], added[i + 1]});
        check_with_sentencepiece(path_, Bpe(vocabulary, merges, bpe_options(import_.spec.tokenizer),
                                            std::pmr::get_default_resource(), added_tokens));
#endif
    }

   private:
    [[noreturn]] void refuse(const char* what, const char* expected, const std::string& found) const {
        throw Error(Status::unsupported, "%s: %s: expected %s, found %s", path_.c_str(), what, expected,
                    found.c_str());
    }

    void refuse_variants() const {
        constexpr std::array<const char*, 5> kinds{"nothing", "unigram", "BPE", "word", "char"};
        if (m_.kind != 2)
            refuse("trainer_spec.model_type", "BPE", m_.kind < kinds.size() ? kinds[m_.kind] : "another");
        if (m_.suffix_space) refuse("trainer_spec.treat_whitespace_as_suffix", "false", "true");
        if (m_.rules_bytes > 0)
            refuse("normalizer_spec", "identity (characters stay as they are)",
                   m_.normaliser.empty() ? "rules without a name" : m_.normaliser);
        if (m_.output_rules_bytes > 0) refuse("denormalizer_spec", "none", "rules");
    }

    // What SentencePiece itself asks of a model, and what merging asks.
    void check_pieces() {
        const uint32_t rows = import_.spec.vocabulary;
        if (m_.texts.size() > rows)
            throw Error(Status::bad_model,
                        "%s: expected at most %u pieces (the embedding's rows), found %zu (a tokenizer of "
                        "another model?)",
                        path_.c_str(), rows, m_.texts.size());
        if (m_.texts.size() < rows)
            import_.notes.push_back("vocabulary: " + std::to_string(rows - m_.texts.size()) +
                                    " embedding rows have no token");
        size_t unknown = 0, bytes = 0;
        for (uint32_t i = 0; i < m_.texts.size(); ++i) {
            if (!ids_.emplace(m_.texts[i], i).second)
                throw Error(Status::bad_model, "%s: piece %u: %.60s stands there twice", path_.c_str(), i,
                            m_.texts[i].c_str());
            if (m_.types[i] == PieceType::unused) refuse("pieces", "none that is unused", m_.texts[i]);
            if (m_.types[i] == PieceType::user_defined && m_.texts[i].find(' ') != std::string::npos)
                refuse("user-defined pieces", "none with a space", m_.texts[i]);
            bytes += m_.types[i] == PieceType::byte ? 1 : 0;
            if (m_.types[i] != PieceType::unknown) continue;
            import_.spec.tokenizer.unknown = static_cast<int32_t>(i);
            ++unknown;
        }
        if (unknown != 1 || bytes != (m_.byte_fallback ? 256u : 0u))
            throw Error(Status::bad_model,
                        "%s: expected one unknown piece and %d pieces of bytes, found %zu and %zu",
                        path_.c_str(), m_.byte_fallback ? 256 : 0, unknown, bytes);
        check_byte_names();
    }

    // <0x00> to <0xFF> are the pieces of bytes and nothing else.
    void check_byte_names() const {
        for (unsigned byte = 0; byte < 256; ++byte) {
            char name[8];
            std::snprintf(name, sizeof(name), "<0x%02X>", byte);
            const auto place = ids_.find(name);
            const bool found = place != ids_.end() && m_.types[place->second] == PieceType::byte;
            if (m_.byte_fallback ? !found : place != ids_.end())
                refuse("pieces", "<0x00> to <0xFF> as bytes of byte_fallback, and else none of these names",
                       name);
        }
    }

    // SentencePiece merges whatever characters stand side by side; we those that are pieces.
    void check_characters() const {
        for (uint32_t i = 0; i < m_.texts.size(); ++i) {
            const std::string& text = m_.texts[i];
            const bool merges = m_.types[i] == PieceType::normal;
            size_t characters = 0;
            for (const char *at = text.data(), *end = at + text.size(); at < end; ++characters) {
                const unicode::Decoded decoded = unicode::decode_utf8(at, end);
                const auto place = ids_.find(std::string(at, decoded.bytes));
                if (merges && (place == ids_.end() || m_.types[place->second] != PieceType::normal))
                    refuse("pieces", "a piece for every character of every other", text);
                at += decoded.bytes;
            }
            const bool reserved = m_.types[i] == PieceType::control || m_.types[i] == PieceType::unknown;
            if (reserved && characters == 1) refuse("control pieces", "more than a character each", text);
        }
    }

    void set_flags(bool added) {
        TokenizerSpec& t = import_.spec.tokenizer;
        t.kind = TokenizerKind::byte_fallback_bpe;
        t.flags = (m_.prefix_space ? tokenizer_flag::prefix_space : 0) |
                  (m_.underlined_space ? tokenizer_flag::underlined_space : 0) |
                  (m_.single_spaces ? tokenizer_flag::single_spaces : 0) |
                  (added ? tokenizer_flag::added_tokens : 0);
        const auto place = ids_.find(m_.begin_piece);
        if (place == ids_.end() || m_.types[place->second] != PieceType::control) return;
        const auto begin = static_cast<int32_t>(place->second);
        if (t.begin >= 0 && t.begin != begin)
            throw Error(Status::bad_model, "%s: piece %s: expected bos_token_id %d (config.json), found %d",
                        path_.c_str(), m_.begin_piece.c_str(), t.begin, begin);
        t.begin = begin;
    }

    Import& import_;
    std::string path_;
    SentencePieceModel m_;
    std::unordered_map<std::string, uint32_t> ids_;
};

// Tokens that the package transformers adds to SentencePiece's; `id` says where it has the id.
void refuse_added(const std::string& path, const std::string& token, const nlohmann::json& id,
                  size_t pieces) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= pieces)
        throw Error(Status::unsupported,
                    "%s: token %.60s: expected a piece of tokenizer.model, found one that is added (with a "
                    "tokenizer.json beside it this is read: AutoTokenizer.from_pretrained(DIR)"
                    ".save_pretrained(DIR) of the package transformers writes it)",
                    path.c_str(), token.c_str());
}

}  // namespace

void import_sentencepiece(Import& import, const std::string& path) {
    SentencePieceImport(import, path, SentencePieceReader(path).read()).run();
}

void import_sentencepiece_folder(Import& import, const std::string& folder) {
    auto model = SentencePieceReader(folder + "/tokenizer.model").read();
    const size_t pieces = model.texts.size();
    const std::string added_path = folder + "/added_tokens.json",
                      config_path = folder + "/tokenizer_config.json";
    if (JsonFile::exists(added_path)) {
        for (const auto& [token, id] : JsonFile(added_path).value().items())
            refuse_added(added_path, token, id, pieces);
    }
    bool begins = true;
    if (JsonFile::exists(config_path)) {
        const JsonFile config(config_path);
        begins = config.flag_or("add_bos_token", true);
        if (config.flag_or("add_eos_token", false))
            throw Error(Status::unsupported, "%s: add_eos_token: expected false, found true",
                        config_path.c_str());
        const auto added = config.has("added_tokens_decoder") ? config.value()["added_tokens_decoder"]
                                                              : nlohmann::json::object();
        for (const auto& [id, token] : added.items())
            refuse_added(config_path, JsonFile(config_path, token).text_or("content", "?"),
                         nlohmann::json::parse(id, nullptr, false), pieces);
    }
    SentencePieceImport(import, folder + "/tokenizer.model", std::move(model)).run();
    TokenizerSpec& t = import.spec.tokenizer;
    if (begins && t.begin >= 0) t.flags |= tokenizer_flag::add_begin;
}

}  // namespace espalier
