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

// A model's weights, one behind the other in huge pages where the system grants them; all memory goes back at
// the end, at once. With pages of 4 KiB nearly every row of a tree costs a walk through the page tables, and
// opening a model takes a page fault every 4 KiB (a quarter of the time to the first answer). The first 4 MiB
// come from `upstream`: a model of which little is copied shall not take pages of 2 MiB.
class WeightPages final : public std::pmr::memory_resource {
   public:
    explicit WeightPages(std::pmr::memory_resource* upstream) : upstream_(upstream), chunks_(upstream) {}
    WeightPages(const WeightPages&) = delete;
    WeightPages& operator=(const WeightPages&) = delete;
    ~WeightPages() override;

   private:
    struct Chunk {
        std::byte* data;
        size_t bytes, used;
    };

    void* do_allocate(size_t bytes, size_t alignment) override;
    void do_deallocate(void* pointer, size_t bytes, size_t alignment) override;
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        return this == &other;
    }
    bool add_chunk(size_t bytes);

    std::pmr::memory_resource* upstream_;
    std::pmr::vector<Chunk> chunks_;
    size_t small_bytes_ = 0;  // from upstream
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
    std::pmr::memory_resource* memory() const { return memory_; }

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
