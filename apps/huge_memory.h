// Memory straight from the system, in huge pages where it grants them: a tree's rows lie all over its memory,
// and with pages of 4 KiB nearly every row costs a walk through the page tables.
#pragma once

#include <cstddef>
#include <memory_resource>
#include <vector>

namespace espalier {

class HugeMemory final : public std::pmr::memory_resource {
   public:
    explicit HugeMemory(bool huge) : huge_(huge) {}

   private:
    void* do_allocate(size_t bytes, size_t alignment) override;
    void do_deallocate(void* pointer, size_t bytes, size_t alignment) override;
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        return this == &other;
    }

    bool huge_;
};

// A block of it, for rows of any type. Zero-filled, and readable 4 KiB past its end.
class HugeBlock {
   public:
    HugeBlock() = default;
    HugeBlock(size_t bytes, std::pmr::memory_resource* memory);
    std::byte* data() const { return data_; }
    template <class T>
    T* as() const {
        return reinterpret_cast<T*>(data_);
    }
    size_t bytes() const { return bytes_; }
    HugeBlock(HugeBlock&& other) noexcept { swap(other); }
    HugeBlock& operator=(HugeBlock&& other) noexcept {
        swap(other);
        return *this;
    }
    ~HugeBlock();

   private:
    void swap(HugeBlock& other) noexcept;
    std::byte* data_ = nullptr;
    size_t bytes_ = 0;
    std::pmr::memory_resource* memory_ = nullptr;
};

// What the system says: memory that can be had without swapping, and this process's share in huge pages. 0
// where it does not say.
size_t available_bytes();
size_t huge_page_bytes();

}  // namespace espalier
