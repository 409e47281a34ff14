// A model file in memory whose fields a test overwrites: finds records, and makes the hashes right again so
// that the checks behind them are reached.
#pragma once

#include <cstring>
#include <span>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "model_format/hash.h"
#include "model_format/layout.h"
#include "model_format/reader.h"
#include "model_format/writer.h"

namespace espalier::test {

// Recomputes the hashes of header and directory over whatever extents the header names, where those lie
// inside the file. The payload's stays as it is: opening does not read it.
inline void rehash(std::span<std::byte> bytes) {
    layout::FileHeader header;
    if (bytes.size() < sizeof(header)) return;
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (header.header_bytes < sizeof(header) || header.header_bytes > bytes.size()) return;
    const auto rest = bytes.subspan(header.header_bytes);
    if (header.directory_bytes <= rest.size())
        header.directory_hash = hash_bytes(rest.first(header.directory_bytes));
    header.header_hash = 0;
    std::memcpy(bytes.data(), &header, sizeof(header));
    header.header_hash = hash_bytes(bytes.first(header.header_bytes));
    std::memcpy(bytes.data(), &header, sizeof(header));
}

inline AlignedBytes copy_of(std::span<const std::byte> bytes) {
    AlignedBytes copy(bytes.size());
    std::memcpy(copy.span().data(), bytes.data(), bytes.size());
    return copy;
}

// Records are edited in place: every one stands at a multiple of 8.
class Patch {
   public:
    explicit Patch(std::span<const std::byte> model) : bytes_(copy_of(model)) {}

    layout::FileHeader& header() { return *at<layout::FileHeader>(0); }
    layout::SectionRecord& section(layout::Section kind) {
        return at<layout::SectionRecord>(header().header_bytes)[static_cast<uint32_t>(kind) - 1];
    }
    layout::ModelRecord& model() { return *at<layout::ModelRecord>(section(layout::Section::model).offset); }
    layout::BlockRecord& block(size_t i) { return record<layout::BlockRecord>(layout::Section::blocks, i); }
    layout::PartRecord& part(size_t i) { return record<layout::PartRecord>(layout::Section::parts, i); }
    layout::HeadRecord& head(size_t i) { return record<layout::HeadRecord>(layout::Section::heads, i); }
    layout::StringRecord& label(size_t i) { return record<layout::StringRecord>(layout::Section::labels, i); }
    layout::TensorRecord& tensor(size_t i) {
        return record<layout::TensorRecord>(layout::Section::tensors, i);
    }
    std::string name(const layout::StringRecord& string) {
        return {at<char>(section(layout::Section::strings).offset + string.offset), string.bytes};
    }
    // The record of the tensor of that name.
    layout::TensorRecord& tensor(std::string_view wanted) {
        size_t i = 0;
        while (name(tensor(i).name) != wanted)
            ++i;
        return tensor(i);
    }
    std::span<std::byte> bytes() { return bytes_.span(); }

    // The message that opening gives now; empty where it opens.
    std::string message(bool fix_hashes = true) {
        if (fix_hashes) rehash(bytes_.span());
        try {
            ModelFile::from_memory(bytes_.span());
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    }

   private:
    template <typename T>
    T* at(uint64_t offset) {
        return reinterpret_cast<T*>(bytes_.span().data() + offset);
    }
    template <typename T>
    T& record(layout::Section kind, size_t i) {
        return at<T>(section(kind).offset)[i];
    }
    AlignedBytes bytes_;
};

}  // namespace espalier::test
