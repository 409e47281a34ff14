// A model ready to run: the mapped file, prepared weights, tokenizer, and the kernels chosen for it. Const
// once opened, so any number of contexts and threads may share it.
#pragma once

#include <memory>
#include <memory_resource>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/dense/dense.h"
#include "model_format/reader.h"
#include "runtime/memory.h"
#include "runtime/prepare.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/vocabulary.h"
#include "runtime/tokenizer/wordpiece.h"

namespace espalier {

struct ModelOptions {
    std::string_view isa;  // empty: ESPALIER_ISA, else the best there is
    std::string_view
        backend;  // empty: oneDNN where it is compiled in and serves the instruction set, else native
    std::string_view precision;  // of the arithmetic: f32, bf16 or int8; empty: as the weights are stored
    bool map = true;
    bool verify = false;
    bool huge_pages = false;      // the file is read into huge pages, where prepared weights are anyway
    bool callers_memory = false;  // `memory` is the caller's: weights come from it piece by piece
    std::pmr::memory_resource* memory = std::pmr::get_default_resource();  // must outlive the model
};

class Model {
   public:
    // Throw Error; see espalier_model_open and espalier_model_from_memory.
    static std::unique_ptr<Model> open(const char* path, const ModelOptions& options);
    static std::unique_ptr<Model> from_memory(std::span<const std::byte> bytes, const ModelOptions& options);

    const ModelFile& file() const { return file_; }
    const ModelSpec& spec() const { return file_.spec(); }
    const KernelTable& kernels() const { return *kernels_; }
    const DenseBackend& backend() const { return *backend_; }
    const PreparedModel& prepared() const { return prepared_; }
    const WordPiece& tokenizer() const;  // throws Error(unsupported) where the model has none
    const Bpe& pieces() const;           // the same of a decoder's
    std::pmr::memory_resource* memory() const { return memory_; }

    TensorType precision() const { return prepared_.precision; }
    uint64_t parameters() const;
    uint64_t prepared_bytes() const { return prepared_.weights.bytes() + prepared_.dense_bytes; }
    // Zero-terminated copies for the C API.
    const char* head_name(size_t head) const { return head_names_[head].c_str(); }
    const char* label(size_t head, size_t label) const {
        return labels_[spec().heads[head].first_label + label].c_str();
    }

   private:
    // open: gives the file, with what it needs from that memory.
    template <class Open>
    Model(const ModelOptions& options, const Open& open);
    void open_tokenizer();
    void open_wordpiece();
    void open_pieces();
    std::span<const AddedToken> added_tokens() const;

    std::pmr::memory_resource* memory_;
    WeightPages pages_;
    std::pmr::memory_resource* weights_;  // pages_ or memory_
    ModelFile file_;
    const KernelTable* kernels_ = nullptr;
    std::unique_ptr<DenseBackend> backend_;
    PreparedModel prepared_;
    std::optional<Vocabulary> vocabulary_;
    std::optional<WordPiece> tokenizer_;
    std::optional<Bpe> pieces_;
    std::vector<std::string> head_names_, labels_;
};

// False in a build without decoders, which refuses to open their models.
bool decoders_compiled_in() noexcept;

// The instruction set of that name, of ESPALIER_ISA where the name is empty, else the best. Throws
// Error(unsupported | invalid_argument) for one that is unknown or not to be had here.
Isa chosen_isa(std::string_view name);
// The type that --precision names. Throws Error(invalid_argument).
TensorType precision_type(std::string_view name);
const char* precision_name(TensorType type);
// The dense backend that a name asks for; none: the best for the instruction set. Throws
// Error(invalid_argument | unsupported).
std::unique_ptr<DenseBackend> chosen_backend(std::string_view name, Isa isa);

// How a file's tokenizer that merges is to work.
BpeOptions bpe_options(const TokenizerSpec& tokenizer);

}  // namespace espalier
