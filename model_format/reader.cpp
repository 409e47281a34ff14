#include "model_format/reader.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "model_format/directory.h"
#include "model_format/hash.h"
#include "model_format/layout.h"
#include "model_format/schema.h"

static_assert(std::endian::native == std::endian::little,
              "the file is read in place: little-endian machines only");

namespace espalier {

ModelFile::ModelFile(MappedFile file, std::span<const std::byte> bytes, const char* source,
                     std::pmr::memory_resource* memory)
    : file_(std::move(file)), bytes_(bytes), spec_(memory), tensors_(memory), by_name_(memory) {
    std::snprintf(source_, sizeof(source_), "%s", source);
    DirectoryParser(*this).parse();
    check_spec(spec_, source_);
    by_name_.resize(tensors_.size());
    for (uint32_t i = 0; i < by_name_.size(); ++i)
        by_name_[i] = i;
    std::sort(by_name_.begin(), by_name_.end(),
              [this](uint32_t a, uint32_t b) { return tensors_[a].name < tensors_[b].name; });
    check_schema(memory);
}

ModelFile ModelFile::open(const char* path, bool map, std::pmr::memory_resource* memory) {
    MappedFile file(path, map, memory);
    const auto bytes = file.bytes();
    return ModelFile(std::move(file), bytes, path, memory);
}

ModelFile ModelFile::from_memory(std::span<const std::byte> bytes, std::pmr::memory_resource* memory) {
    if (reinterpret_cast<uintptr_t>(bytes.data()) % layout::tensor_alignment != 0)
        throw Error(Status::invalid_argument,
                    "model in memory: expected an address that is a multiple of %llu",
                    static_cast<unsigned long long>(layout::tensor_alignment));
    return ModelFile({}, bytes, "model in memory", memory);
}

const TensorView* ModelFile::find(std::string_view name) const {
    const auto place =
        std::lower_bound(by_name_.begin(), by_name_.end(), name,
                         [this](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
    if (place == by_name_.end() || tensors_[*place].name != name) return nullptr;
    return &tensors_[*place];
}

const TensorView& ModelFile::at(std::string_view name) const {
    const TensorView* tensor = find(name);
    if (tensor == nullptr)
        throw Error(Status::bad_model, "%s: tensor %.*s: missing", source_, static_cast<int>(name.size()),
                    name.data());
    return *tensor;
}

// Exactly the tensors of the schema, each with its scales: a missing one is never made up, and an
// unexpected one means that the file holds something this version would silently ignore.
void ModelFile::check_schema(std::pmr::memory_resource* memory) {
    for (size_t i = 1; i < by_name_.size(); ++i) {
        if (tensors_[by_name_[i]].name == tensors_[by_name_[i - 1]].name)
            throw Error(Status::bad_model, "%s: tensor %.80s: stands in the file twice", source_,
                        TensorName(tensor_name("%.*s", static_cast<int>(tensors_[by_name_[i]].name.size()),
                                               tensors_[by_name_[i]].name.data()))
                            .text);
    }
    size_t known = 0;
    for (const TensorNeed& need : tensors_of(spec_, memory)) {
        const TensorView& tensor = at(need.name);
        if (!shape_fits(need, std::span(tensor.dimensions).first(tensor.rank)))
            throw Error(
                Status::bad_model,
                "%s: tensor %s at byte %llu: expected shape [%llu, %llu, %llu, %llu] of rank %u, found "
                "[%llu, %llu, %llu, %llu] of rank %u",
                source_, need.name.text, static_cast<unsigned long long>(tensor.offset),
                static_cast<unsigned long long>(need.dimensions[0]),
                static_cast<unsigned long long>(need.dimensions[1]),
                static_cast<unsigned long long>(need.dimensions[2]),
                static_cast<unsigned long long>(need.dimensions[3]), need.rank,
                static_cast<unsigned long long>(tensor.dimensions[0]),
                static_cast<unsigned long long>(tensor.dimensions[1]),
                static_cast<unsigned long long>(tensor.dimensions[2]),
                static_cast<unsigned long long>(tensor.dimensions[3]), tensor.rank);
        if (!layout_fits(need, tensor.layout))
            throw Error(Status::bad_model, "%s: tensor %s: layout %s does not fit what it is used for",
                        source_, need.name.text, name_of(tensor.layout));
        if (!type_fits(need.role, tensor.type))
            throw Error(Status::bad_model, "%s: tensor %s: type %s does not fit what it is used for", source_,
                        need.name.text, name_of(tensor.type));
        ++known;
        const bool wants_scales = tensor.type == TensorType::s8;
        if (wants_scales != (tensor.scales != TensorScales::none))
            throw Error(Status::bad_model, "%s: tensor %s: type %s %s scales", source_, need.name.text,
                        name_of(tensor.type), wants_scales ? "needs" : "takes no");
        if (!wants_scales) continue;
        const TensorView& scale = at(tensor_name("%s.scale", need.name.text));
        const uint64_t count = tensor.scales == TensorScales::per_row ? tensor.rows() : tensor.row_length();
        if (scale.type != TensorType::f32 || scale.elements() != count || scale.scales != TensorScales::none)
            throw Error(Status::bad_model, "%s: tensor %s.scale: expected %llu f32, found %llu %s", source_,
                        need.name.text, static_cast<unsigned long long>(count),
                        static_cast<unsigned long long>(scale.elements()), name_of(scale.type));
        ++known;
    }
    if (known != tensors_.size())
        throw Error(Status::bad_model, "%s: tensors: expected %zu for this architecture, found %zu", source_,
                    known, tensors_.size());
}

void ModelFile::verify_payload() const {
    const uint64_t found = hash_bytes(bytes_.subspan(payload_offset_));
    if (found != payload_hash_)
        throw Error(Status::bad_model, "%s: payload at byte %llu: expected hash %016llx, found %016llx",
                    source_, static_cast<unsigned long long>(payload_offset_),
                    static_cast<unsigned long long>(payload_hash_), static_cast<unsigned long long>(found));
}

}  // namespace espalier
