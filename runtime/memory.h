// Memory that the caller can supply: everything that models and contexts allocate goes through one
// std::pmr::memory_resource made of the caller's hooks.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory_resource>
#include <vector>

#include "espalier/espalier.h"

namespace espalier {

// Throws Error(out_of_memory) that says how much was asked for where the hook returns null.
class HookResource final : public std::pmr::memory_resource {
   public:
    // A null `allocate` means the C library's aligned_alloc and free.
    explicit HookResource(const espalier_allocator& hooks) : hooks_(hooks) {}
    size_t live_bytes() const { return live_.load(std::memory_order_relaxed); }

   private:
    void* do_allocate(size_t bytes, size_t alignment) override;
    void do_deallocate(void* pointer, size_t bytes, size_t alignment) override;
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        return this == &other;
    }

    espalier_allocator hooks_;
    std::atomic<size_t> live_{0};
};

// Pieces of 2 MiB and more in huge pages, where the system grants them; smaller ones from `upstream`. A
// tree's rows lie all over its memory: with pages of 4 KiB nearly every row costs a walk through the page
// tables.
class HugePages final : public std::pmr::memory_resource {
   public:
    explicit HugePages(std::pmr::memory_resource* upstream) : upstream_(upstream) {}

   private:
    void* do_allocate(size_t bytes, size_t alignment) override;
    void do_deallocate(void* pointer, size_t bytes, size_t alignment) override;
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        return this == &other;
    }

    std::pmr::memory_resource* upstream_;
};

// Float arrays that live as long as a model: widened, transposed or padded weights.
class WeightStore {
   public:
    explicit WeightStore(std::pmr::memory_resource* memory) : memory_(memory), pieces_(memory) {}
    WeightStore(const WeightStore&) = delete;
    WeightStore& operator=(const WeightStore&) = delete;
    ~WeightStore();
    // 64-byte aligned, zero-filled, readable 64 floats past its end.
    float* floats(size_t count);
    size_t bytes() const { return bytes_; }

   private:
    struct Piece {
        void* data;
        size_t bytes;
    };
    std::pmr::memory_resource* memory_;
    std::pmr::vector<Piece> pieces_;
    size_t bytes_ = 0;
};

}  // namespace espalier
