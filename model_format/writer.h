// Writes a model file. The file appears under its name only when it is complete: it is written beside it
// and renamed, so an interrupted or failed conversion loses nothing that was there before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model_format/spec.h"

namespace espalier {

// A tensor to be written. `data` is called once, when its turn comes, so that only one tensor's bytes are
// in memory at a time; it must return exactly the bytes that type and dimensions imply.
struct TensorSource {
    std::string name;
    TensorType type = TensorType::f32;
    TensorLayout layout = TensorLayout::row_major;
    TensorScales scales = TensorScales::none;
    std::vector<uint64_t> dimensions;
    std::function<std::vector<std::byte>()> data;
};

// Called after each tensor with the bytes written so far and in all; may be empty.
using WriteProgress = std::function<void(uint64_t done, uint64_t total)>;

// `tensors` must be those of tensors_of(spec), scales included, in any order; they are written in the
// schema's order, each followed by its scales. Throws Error: bad_model (names the missing, unknown,
// repeated or misshapen tensor), io.
void write_model(const char* path, const ModelSpec& spec, std::vector<TensorSource> tensors,
                 const WriteProgress& progress = {});

// The same into memory that starts at a multiple of 64 (std::vector does not promise that): for tests and
// synthetic models.
class AlignedBytes {
   public:
    explicit AlignedBytes(size_t bytes);
    std::span<std::byte> span() { return {data_.get(), bytes_}; }
    std::span<const std::byte> span() const { return {data_.get(), bytes_}; }

   private:
    struct Free {
        void operator()(std::byte* data) const;
    };
    std::unique_ptr<std::byte[], Free> data_;
    size_t bytes_;
};
AlignedBytes model_to_memory(const ModelSpec& spec, std::vector<TensorSource> tensors);

}  // namespace espalier
