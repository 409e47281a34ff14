// Turns the header and directory of a model file into a ModelSpec and tensor views. Internal to model_format.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "model_format/layout.h"
#include "model_format/reader.h"

namespace espalier {

class DirectoryParser {
   public:
    explicit DirectoryParser(ModelFile& file) : file_(file), bytes_(file.bytes_) {}
    // Fills the file's spec, tensors, payload position and hash. Throws Error(bad_model | unsupported).
    void parse();

   private:
    struct SectionView {
        bool present = false;
        uint64_t offset = 0, count = 0, record_bytes = 0;
    };
    static constexpr uint32_t known_sections = 7;

    void check_header();
    void read_sections();
    void read_model();
    void read_blocks();
    void read_parts();
    void read_heads();
    void read_labels();
    void read_tensors();
    template <class Fail>
    void check_packed(const TensorView& view, const Fail& fail) const;
    TensorView read_tensor(const layout::TensorRecord& record, uint64_t index, uint64_t& position);
    const SectionView& section(layout::Section kind, uint64_t cap, uint64_t record_bytes) const;
    template <typename Record>
    Record record(const SectionView& section, uint64_t index) const;
    std::string_view string(const layout::StringRecord& record, const char* what);

    ModelFile& file_;
    std::span<const std::byte> bytes_;
    layout::FileHeader header_{};
    uint64_t string_bytes_ = 0;                               // of all strings so far
    std::array<SectionView, known_sections + 1> sections_{};  // by kind; 0 is not used
};

}  // namespace espalier
