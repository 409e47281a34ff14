// The tensors of a checkpoint's folder: in model.safetensors, or in the shards that
// model.safetensors.index.json lists, each tensor in one of them. Keeps account of what was used.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "apps/importers/safetensors.h"

namespace espalier {

class Weights {
   public:
    // Throws Error(io | bad_model | unsupported), so where the index and the shards contradict each other.
    explicit Weights(const std::string& folder);

    // The file that lists the tensors.
    const std::string& path() const { return path_; }
    // The file that holds the tensor, which must be there.
    const std::string& path_of(const std::string& name) const { return file_of_.at(name)->path(); }
    bool has(std::string_view name) const { return file_of_.contains(name); }
    std::vector<std::string> names() const;
    const std::vector<uint64_t>& shape_of(const std::string& name) const;  // likewise

    // As Safetensors::check, and marked as used. Throws Error(bad_model) where the tensor is missing.
    const Safetensors::Tensor& check(const std::string& name, std::span<const uint64_t> shape);
    // Counts as used, if it is there.
    void set_aside(const std::string& name) {
        if (has(name)) used_.insert(name);
    }
    std::vector<std::string> unused() const;

   private:
    void read_shards(const std::string& folder);

    std::string path_;
    std::vector<std::unique_ptr<Safetensors>> files_;
    std::map<std::string, const Safetensors*, std::less<>> file_of_;
    std::set<std::string, std::less<>> used_;
};

}  // namespace espalier
