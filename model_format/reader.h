// Opens a model file: maps it, checks it, copies no tensor. A file is hostile until it has been checked:
// every count is capped and every product checked before it is used, and nothing is allocated in
// proportion to a number that was not compared with the file's own size first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "model_format/mapped_file.h"
#include "model_format/spec.h"

namespace espalier {

// A tensor as it stands in the file. Rows are along the last dimension.
struct TensorView {
    std::string_view name;
    TensorType type = TensorType::f32;
    TensorLayout layout = TensorLayout::row_major;
    TensorScales scales = TensorScales::none;
    uint32_t rank = 1;
    std::array<uint64_t, 4> dimensions{1, 1, 1, 1};
    std::array<uint32_t, 4> layout_arguments{};
    uint64_t offset = 0;               // from the start of the file
    std::span<const std::byte> bytes;  // 64-byte aligned if the file is

    uint64_t elements() const { return dimensions[0] * dimensions[1] * dimensions[2] * dimensions[3]; }
    uint64_t row_length() const { return dimensions[rank - 1]; }
    uint64_t rows() const { return elements() / row_length(); }
    template <typename T>
    const T* as() const {
        return reinterpret_cast<const T*>(bytes.data());
    }
};

class ModelFile {
   public:
    // Map (or read) the file at `path`. Throws Error: io, bad_model, unsupported, out_of_memory.
    static ModelFile open(const char* path, bool map = true,
                          std::pmr::memory_resource* memory = std::pmr::get_default_resource());
    // Reads from the caller's bytes, which must stay valid and unchanged, and start at a multiple of 64.
    static ModelFile from_memory(std::span<const std::byte> bytes,
                                 std::pmr::memory_resource* memory = std::pmr::get_default_resource());

    const ModelSpec& spec() const { return spec_; }
    std::span<const TensorView> tensors() const { return tensors_; }  // in file order
    const TensorView* find(std::string_view name) const;              // null where there is none
    const TensorView& at(std::string_view name) const;                // throws where there is none
    std::span<const std::byte> bytes() const { return bytes_; }
    uint64_t payload_hash() const { return payload_hash_; }
    uint16_t version_major() const { return version_[0]; }
    uint16_t version_minor() const { return version_[1]; }
    const char* source() const { return source_; }

    // Gives back the memory that a tensor of a mapped file takes, until it is read again.
    void release(const TensorView& tensor) const { file_.release(tensor.bytes); }

    // Hashes the whole payload and compares; throws Error(bad_model). Reads every byte of the file.
    void verify_payload() const;

   private:
    friend class DirectoryParser;
    ModelFile(MappedFile file, std::span<const std::byte> bytes, const char* source,
              std::pmr::memory_resource* memory);
    void check_schema(std::pmr::memory_resource* memory);

    MappedFile file_;
    std::span<const std::byte> bytes_;
    char source_[240];
    ModelSpec spec_;
    std::pmr::vector<TensorView> tensors_;
    std::pmr::vector<uint32_t> by_name_;  // indices into tensors_, sorted by name
    uint64_t payload_offset_ = 0;
    uint64_t payload_hash_ = 0;
    std::array<uint16_t, 2> version_{};
};

}  // namespace espalier
