// One block of memory, handed out in order. The same code lays it out twice: without memory, to count, and
// with it; so the bytes planned are the bytes used.
#pragma once

#include <cstddef>
#include <memory_resource>

#include "base/checked.h"

namespace espalier {

class Arena {
   public:
    // A null base only counts.
    explicit Arena(std::byte* base) : base_(base) {}

    // 64-byte aligned; null while counting.
    template <typename T>
    T* take(size_t count) {
        std::byte* place = base_ == nullptr ? nullptr : base_ + used_;
        used_ += round_up(count * sizeof(T), 64);
        return reinterpret_cast<T*>(place);
    }
    size_t used() const { return used_; }

   private:
    std::byte* base_;
    size_t used_ = 0;
};

// The memory of an arena that is nobody else's. Not cleared.
class ArenaMemory {
   public:
    ArenaMemory() = default;
    ArenaMemory(const ArenaMemory&) = delete;
    ArenaMemory& operator=(const ArenaMemory&) = delete;
    ~ArenaMemory() {
        if (data_ != nullptr) memory_->deallocate(data_, bytes_, 64);
    }
    std::byte* allocate(std::pmr::memory_resource* memory, size_t bytes) {
        data_ = static_cast<std::byte*>(memory->allocate(bytes, 64));
        bytes_ = bytes;
        memory_ = memory;
        return data_;
    }

   private:
    std::byte* data_ = nullptr;
    size_t bytes_ = 0;
    std::pmr::memory_resource* memory_ = nullptr;
};

}  // namespace espalier
