#include "runtime/model.h"

#include <cstdlib>

#include "base/error.h"

namespace espalier {

Isa chosen_isa(std::string_view name) {
    const char* from = "instruction set";
    if (name.empty()) {
        const char* variable = std::getenv("ESPALIER_ISA");
        if (variable == nullptr || variable[0] == 0) return best_isa();
        name = variable;
        from = "ESPALIER_ISA";
    }
    const auto isa = isa_from_name(name);
    if (!isa)
        throw Error(Status::invalid_argument, "%s: expected scalar, avx2, avx512 or neon, found %.*s", from,
                    static_cast<int>(name.size()), name.data());
    return kernel_table(*isa).isa;
}

TensorType precision_type(std::string_view name) {
    if (name == "f32") return TensorType::f32;
    if (name == "bf16") return TensorType::bf16;
    if (name == "int8") return TensorType::s8;
    throw Error(Status::invalid_argument, "precision: expected f32, bf16 or int8, found %.*s",
                static_cast<int>(name.size()), name.data());
}

const char* precision_name(TensorType type) {
    return type == TensorType::s8 ? "int8" : name_of(type);
}

std::unique_ptr<DenseBackend> chosen_backend(std::string_view name, Isa isa) {
    if (name == "native") return make_native_backend(isa);
    if (name == "onednn") return make_onednn_backend(isa);
    if (!name.empty())
        throw Error(Status::invalid_argument, "backend: expected onednn or native, found %.*s",
                    static_cast<int>(name.size()), name.data());
    // oneDNN has no scalar kernels, and falls to a reference loop on NEON-only Arm.
    if (!onednn_compiled_in() || isa == Isa::scalar || isa == Isa::neon) return make_native_backend(isa);
    return make_onednn_backend(isa);
}

template <class Open>
Model::Model(const ModelOptions& options, const Open& open)
    : memory_(options.memory),
      pages_(options.memory),
      weights_(options.callers_memory ? options.memory : &pages_),
      file_(open(options.huge_pages ? weights_ : options.memory)),
      prepared_(weights_) {
    if (spec().family == Family::decoder && !decoders_compiled_in())
        throw Error(Status::unsupported,
                    "%s: expected an encoder, found a decoder: this build has none (ESPALIER_DECODERS=OFF)",
                    file_.source());
    if (options.verify) file_.verify_payload();
    const Isa isa = chosen_isa(options.isa);
    kernels_ = &kernel_table(isa);
    const TensorType precision =
        options.precision.empty() ? stored_precision(file_) : precision_type(options.precision);
    // In bfloat16 a decoder's prompts and tokens take our own kernels 3 to 9 % less time than oneDNN
    // (docs/performance.md, Decoders).
    const bool own = spec().family == Family::decoder && precision == TensorType::bf16;
    backend_ = chosen_backend(own && options.backend.empty() ? "native" : options.backend, isa);
    open_tokenizer();
    prepare(file_, *kernels_, *backend_, precision, memory_, prepared_);
    for (const HeadSpec& head : spec().heads)
        head_names_.emplace_back(head.name);
    for (const auto label : spec().labels)
        labels_.emplace_back(label);
}

std::unique_ptr<Model> Model::open(const char* path, const ModelOptions& options) {
    return std::unique_ptr<Model>(new Model(options, [&](std::pmr::memory_resource* memory) {
        return ModelFile::open(path, options.map && !options.huge_pages, memory);
    }));
}

std::unique_ptr<Model> Model::from_memory(std::span<const std::byte> bytes, const ModelOptions& options) {
    return std::unique_ptr<Model>(new Model(
        options, [&](std::pmr::memory_resource* memory) { return ModelFile::from_memory(bytes, memory); }));
}

void Model::open_tokenizer() {
    const TokenizerSpec& t = spec().tokenizer;
    if (t.kind == TokenizerKind::none || !tokenizers_compiled_in()) return;
    if (t.kind != TokenizerKind::wordpiece && !merges_pieces(t.kind))
        throw Error(Status::unsupported, "%s: tokenizer %s does not run in this version", file_.source(),
                    name_of(t.kind));
    const TensorView& offsets = file_.at("tokenizer.offsets");
    const TensorView& bytes = file_.at("tokenizer.bytes");
    if (offsets.type != TensorType::u32 || bytes.type != TensorType::u8)
        throw Error(Status::bad_model,
                    "%s: tensors tokenizer.offsets and tokenizer.bytes: expected u32 and u8, found %s and %s",
                    file_.source(), name_of(offsets.type), name_of(bytes.type));
    try {
        vocabulary_.emplace(std::span(offsets.as<uint32_t>(), offsets.elements()),
                            std::span(bytes.as<char>(), bytes.elements()), memory_);
        if (t.kind == TokenizerKind::wordpiece) {
            open_wordpiece();
        } else {
            open_pieces();
        }
    } catch (const Error& error) {
        throw Error(error.status(), "%s: %s", file_.source(), error.what());  // a tokenizer knows no file
    }
}

void Model::open_wordpiece() {
    const TokenizerSpec& t = spec().tokenizer;
    WordPieceOptions options;
    options.clean_text = (t.flags & tokenizer_flag::clean_text) != 0;
    options.split_cjk = (t.flags & tokenizer_flag::split_cjk) != 0;
    options.strip_accents = (t.flags & tokenizer_flag::strip_accents) != 0;
    options.lowercase = (t.flags & tokenizer_flag::lowercase) != 0;
    options.max_word_characters = t.max_word_characters;
    options.continuation = t.continuation;
    options.unknown = t.unknown;
    options.cls = t.cls;
    options.sep = t.sep;
    options.pad = t.pad;
    options.mask = t.mask;
    tokenizer_.emplace(*vocabulary_, options);
}

BpeOptions bpe_options(const TokenizerSpec& t) {
    const auto has = [&](uint32_t flag) { return (t.flags & flag) != 0; };
    BpeOptions options;
    options.add_begin = has(tokenizer_flag::add_begin);
    options.prefix_space = has(tokenizer_flag::prefix_space);
    options.underlined_space = has(tokenizer_flag::underlined_space);
    options.single_spaces = has(tokenizer_flag::single_spaces);
    options.named_specials = has(tokenizer_flag::named_specials);
    options.unknown = t.unknown;
    options.begin = t.begin;
    options.end = t.end;
    options.pad = t.pad;
    options.byte_level = t.kind == TokenizerKind::byte_level_bpe;
    options.words = has(tokenizer_flag::gpt2_words)     ? WordRule::gpt2
                    : has(tokenizer_flag::llama3_words) ? WordRule::llama3
                                                        : WordRule::whole;
    options.single_digits = has(tokenizer_flag::single_digits);
    options.whole_words = has(tokenizer_flag::whole_words);
    return options;
}

void Model::open_pieces() {
    const TokenizerSpec& t = spec().tokenizer;
    const TensorView& merges = file_.at("tokenizer.merges");
    if (merges.type != TensorType::u32)
        throw Error(Status::bad_model, "tensor tokenizer.merges: expected u32, found %s",
                    name_of(merges.type));
    std::span<const AddedToken> added;
    if ((t.flags & tokenizer_flag::added_tokens) != 0) added = added_tokens();
    pieces_.emplace(*vocabulary_, std::span(merges.as<BpeMerge>(), merges.rows()), bpe_options(t), memory_,
                    added);
}

std::span<const AddedToken> Model::added_tokens() const {
    const TensorView& added = file_.at("tokenizer.added");
    if (added.type != TensorType::u32)
        throw Error(Status::bad_model, "tensor tokenizer.added: expected u32, found %s", name_of(added.type));
    return {added.as<AddedToken>(), added.rows()};
}

const WordPiece& Model::tokenizer() const {
    if (!tokenizer_)
        throw Error(Status::unsupported, "%s: %s has no tokenizer: give token ids", file_.source(),
                    tokenizers_compiled_in() ? "the model" : "this build");
    return *tokenizer_;
}

const Bpe& Model::pieces() const {
    if (!pieces_)
        throw Error(Status::unsupported, "%s: expected a tokenizer by byte-pair encoding, found %s",
                    file_.source(), name_of(spec().tokenizer.kind));
    return *pieces_;
}

uint64_t Model::parameters() const {
    uint64_t total = 0;
    for (const TensorView& tensor : file_.tensors()) {
        const bool is_scale = tensor.name.ends_with(".scale");
        if (!is_scale && !tensor.name.starts_with("tokenizer.")) total += tensor.elements();
    }
    return total;
}

}  // namespace espalier
