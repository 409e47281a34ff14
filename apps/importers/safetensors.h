// Reads a .safetensors file (github.com/huggingface/safetensors, format description in its README): a 64-bit
// header length, a JSON header, the tensors' bytes. Checked like any file from outside: the header is capped,
// offsets must cover the data without holes or overlap, sizes must follow from type and shape.
#pragma once

#include <cstdint>
#include <map>
#include <memory_resource>
#include <span>
#include <string>
#include <vector>

#include "model_format/mapped_file.h"

namespace espalier {

class Safetensors {
   public:
    // Throws Error(io | bad_model | unsupported).
    explicit Safetensors(const std::string& path);

    struct Tensor {
        std::string type;  // F32, F16, BF16, …
        std::vector<uint64_t> shape;
        std::span<const std::byte> bytes;
    };
    const std::string& path() const { return path_; }
    const std::map<std::string, Tensor, std::less<>>& tensors() const { return tensors_; }
    bool has(std::string_view name) const { return tensors_.contains(name); }

    // A tensor that is there. Throws Error(bad_model | unsupported) that names it where it is of another
    // shape, or of a type that is not F32, F16 or BF16.
    const Tensor& check(const std::string& name, std::span<const uint64_t> shape) const;
    static std::vector<float> values(const Tensor& tensor);
    // Those of several tensors, one under another.
    static std::vector<float> stacked(const std::vector<const Tensor*>& tensors);

   private:
    void parse();

    std::string path_;
    MappedFile file_;
    std::map<std::string, Tensor, std::less<>> tensors_;
};

// "[2, 384]"
std::string shape_text(std::span<const uint64_t> shape);

}  // namespace espalier
