// One block of memory, handed out in order. The same code lays it out twice: without memory, to count, and
// with it; so the bytes planned are the bytes used.
#pragma once

#include <cstddef>

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

}  // namespace espalier
