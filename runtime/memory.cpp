#include "runtime/memory.h"

#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/checked.h"
#include "base/error.h"

namespace espalier {

void* HookResource::do_allocate(size_t bytes, size_t alignment) {
    void* pointer = nullptr;
    if (hooks_.allocate != nullptr) {
        pointer = hooks_.allocate(hooks_.user, bytes, alignment);
    } else if (alignment <= alignof(std::max_align_t)) {
        pointer = std::malloc(bytes > 0 ? bytes : 1);
    } else {
        // aligned_alloc wants a whole number of alignments.
        pointer = std::aligned_alloc(alignment, round_up(bytes > 0 ? bytes : 1, alignment));
    }
    if (pointer == nullptr)
        throw Error(Status::out_of_memory, "out of memory: %zu bytes were asked for", bytes);
    live_.fetch_add(bytes, std::memory_order_relaxed);
    return pointer;
}

void HookResource::do_deallocate(void* pointer, size_t bytes, size_t alignment) {
    live_.fetch_sub(bytes, std::memory_order_relaxed);
    if (hooks_.allocate != nullptr) {
        if (hooks_.release != nullptr) hooks_.release(hooks_.user, pointer, bytes, alignment);
    } else {
        std::free(pointer);
    }
}

void* HugePages::do_allocate(size_t bytes, size_t alignment) {
    constexpr size_t page = size_t{2} << 20;
    if (bytes < page) return upstream_->allocate(bytes, alignment);
    void* pointer = std::aligned_alloc(page, round_up(bytes, page));
    if (pointer == nullptr)
        throw Error(Status::out_of_memory, "out of memory: %zu bytes were asked for", bytes);
#if defined(__linux__)
    madvise(pointer, round_up(bytes, page), MADV_HUGEPAGE);  // a wish: without them all works as well
#endif
    return pointer;
}

void HugePages::do_deallocate(void* pointer, size_t bytes, size_t alignment) {
    if (bytes < size_t{2} << 20) {
        upstream_->deallocate(pointer, bytes, alignment);
    } else {
        std::free(pointer);
    }
}

float* WeightStore::floats(size_t count) {
    constexpr size_t readable_past_end = 64;
    const size_t bytes = (count + readable_past_end) * sizeof(float);
    pieces_.reserve(pieces_.size() + 1);  // before the allocation: nothing leaks if this throws
    void* data = memory_->allocate(bytes, 64);
    std::memset(data, 0, bytes);
    pieces_.push_back({data, bytes});
    bytes_ += bytes;
    return static_cast<float*>(data);
}

WeightStore::~WeightStore() {
    for (const Piece& piece : pieces_)
        memory_->deallocate(piece.data, piece.bytes, 64);
}

}  // namespace espalier
