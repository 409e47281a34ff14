#include "apps/importers/weights.h"

#include <filesystem>

#include "apps/importers/json.h"
#include "base/error.h"

namespace espalier {
namespace {

// A file beside the index, never a way to another folder.
bool is_plain_name(const std::string& name) {
    return name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos &&
           name.ends_with(".safetensors");
}

}  // namespace

Weights::Weights(const std::string& folder) : path_(folder + "/model.safetensors") {
    const std::string index = path_ + ".index.json";
    if (!std::filesystem::exists(path_) && JsonFile::exists(index)) {
        path_ = index;
        read_shards(folder);
        return;
    }
    if (!std::filesystem::exists(path_) && std::filesystem::exists(folder + "/pytorch_model.bin"))
        throw Error(Status::unsupported,
                    "%s: expected model.safetensors (save_pretrained of the package transformers writes it), "
                    "found pytorch_model.bin",
                    folder.c_str());
    files_.push_back(std::make_unique<Safetensors>(path_));
    for (const auto& [name, tensor] : files_.front()->tensors())
        file_of_.emplace(name, files_.front().get());
}

// Every tensor must be where the index has it and nowhere else.
void Weights::read_shards(const std::string& folder) {
    const JsonFile index(path_);
    const auto& places =
        index.value().contains("weight_map") ? index.value()["weight_map"] : nlohmann::json();
    if (!places.is_object() || places.empty())
        throw Error(Status::bad_model, "%s: weight_map: expected the shard of each tensor, found %s",
                    path_.c_str(), places.is_object() ? "none" : places.type_name());
    std::map<std::string, const Safetensors*> shards;
    for (const auto& [name, place] : places.items()) {
        const std::string shard = place.is_string() ? place.get<std::string>() : "";
        if (!is_plain_name(shard))
            throw Error(Status::bad_model,
                        "%s: tensor %s: expected the name of a .safetensors file in this folder, found %.80s",
                        path_.c_str(), name.c_str(),
                        place.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
        const Safetensors*& file = shards[shard];
        if (file == nullptr) {
            const auto path = std::filesystem::path(folder) / shard;
            if (!std::filesystem::exists(path))
                throw Error(Status::io, "%s: tensor %s: shard %s: missing", path_.c_str(), name.c_str(),
                            shard.c_str());
            file = files_.emplace_back(std::make_unique<Safetensors>(path.string())).get();
        }
        if (!file->has(name))
            throw Error(Status::bad_model, "%s: tensor %s: expected it in %s, found none there",
                        path_.c_str(), name.c_str(), shard.c_str());
        file_of_.emplace(name, file);
    }
    for (const auto& [shard, file] : shards) {
        for (const auto& [name, tensor] : file->tensors()) {
            const auto place = file_of_.find(name);
            if (place == file_of_.end() || place->second != file)
                throw Error(Status::bad_model, "%s: tensor %s: expected it in %s, found it in %s too",
                            path_.c_str(), name.c_str(),
                            place == file_of_.end() ? "no shard" : place->second->path().c_str(),
                            shard.c_str());
        }
    }
}

std::vector<std::string> Weights::names() const {
    std::vector<std::string> names;
    names.reserve(file_of_.size());
    for (const auto& [name, file] : file_of_)
        names.push_back(name);
    return names;
}

const std::vector<uint64_t>& Weights::shape_of(const std::string& name) const {
    return file_of_.at(name)->tensors().at(name).shape;
}

const Safetensors::Tensor& Weights::check(const std::string& name, std::span<const uint64_t> shape) {
    const auto place = file_of_.find(name);
    if (place == file_of_.end())
        throw Error(Status::bad_model, "%s: tensor %s: missing (expected shape %s)", path_.c_str(),
                    name.c_str(), shape_text(shape).c_str());
    used_.insert(name);
    return place->second->check(name, shape);
}

std::vector<std::string> Weights::unused() const {
    std::vector<std::string> names;
    for (const auto& [name, file] : file_of_) {
        if (!used_.contains(name)) names.push_back(name);
    }
    return names;
}

}  // namespace espalier
