// A file's bytes, read-only: mapped, or read into memory where mapping is not wanted.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <span>

namespace espalier {

class MappedFile {
   public:
    MappedFile() = default;
    // Throws Error(io) with the path and the system's reason. With `map` false the bytes are read once into
    // 64-byte aligned memory from `memory`, which must outlive this object.
    MappedFile(const char* path, bool map, std::pmr::memory_resource* memory);
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    // Gives back the memory of a part that will hardly be read again; it is read from the file if it is.
    // Nothing happens to a file that was read, or to memory of the caller's.
    void release(std::span<const std::byte> part) const;
    std::span<const std::byte> bytes() const { return bytes_; }

   private:
    std::span<const std::byte> bytes_;
    std::pmr::memory_resource* owner_ = nullptr;  // null: mapped (or empty)
};

}  // namespace espalier
