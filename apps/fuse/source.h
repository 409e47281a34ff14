// A model file as `fuse` reads it: tensors in float32, or as they stand.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/importers/import.h"
#include "model_format/reader.h"

namespace espalier {

class SourceModel {
   public:
    // Opens and verifies the file. Throws Error.
    explicit SourceModel(const std::string& path) : file_(ModelFile::open(path.c_str())) {
        file_.verify_payload();
    }
    explicit SourceModel(ModelFile file) : file_(std::move(file)) {}

    const ModelFile& file() const { return file_; }
    const ModelSpec& spec() const { return file_.spec(); }
    // What the file's blocks are stored in.
    Precision precision() const;
    // In float32, row by row; 8-bit rows are turned back (kernels/quantize/rotate.h).
    std::vector<float> values(const std::string& name) const;
    // Adds the tensor, and its scales, byte for byte under another name. The model must outlive `out`'s use.
    void copy(const std::string& name, const std::string& as, std::vector<TensorSource>& out) const;

   private:
    ModelFile file_;
};

}  // namespace espalier
