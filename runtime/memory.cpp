#include "runtime/memory.h"

#include <cstdlib>
#include <cstring>
#include <functional>

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

namespace {

constexpr size_t huge_page = size_t{2} << 20;
// Pages that nothing was written to take no memory: what counts is that few pieces end a chunk early.
constexpr size_t chunk_bytes = size_t{16} << 20;
constexpr size_t small_limit = 2 * huge_page;

// AddressSanitizer sees the ends of pieces only if they are its own.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool separate_pieces = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool separate_pieces = true;
#else
constexpr bool separate_pieces = false;
#endif
#else
constexpr bool separate_pieces = false;
#endif

}  // namespace

bool WeightPages::add_chunk(size_t bytes) {
    chunks_.reserve(chunks_.size() + 1);  // before the allocation: nothing leaks if this throws
    auto* data = static_cast<std::byte*>(std::aligned_alloc(huge_page, bytes));
    if (data == nullptr) return false;
#if defined(__linux__)
    madvise(data, bytes, MADV_HUGEPAGE);  // a wish: without them all works as well
#endif
    chunks_.push_back({data, bytes, 0});
    return true;
}

void* WeightPages::do_allocate(size_t bytes, size_t alignment) {
    if (separate_pieces || small_bytes_ + bytes <= small_limit || alignment > huge_page) {
        void* pointer = upstream_->allocate(bytes, alignment);
        small_bytes_ += bytes;
        return pointer;
    }
    const auto fits = [&] {
        return !chunks_.empty() && round_up(chunks_.back().used, alignment) + bytes <= chunks_.back().bytes;
    };
    const size_t least = round_up(bytes, huge_page);
    if (!fits() && !add_chunk(least > chunk_bytes ? least : chunk_bytes) && !add_chunk(least))
        throw Error(Status::out_of_memory, "out of memory: %zu bytes were asked for", bytes);
    Chunk& chunk = chunks_.back();
    const size_t place = round_up(chunk.used, alignment);
    chunk.used = place + bytes;
    return chunk.data + place;
}

void WeightPages::do_deallocate(void* pointer, size_t bytes, size_t alignment) {
    const auto* place = static_cast<const std::byte*>(pointer);
    for (const Chunk& chunk : chunks_) {
        if (!std::less<>()(place, chunk.data) && std::less<>()(place, chunk.data + chunk.bytes)) return;
    }
    upstream_->deallocate(pointer, bytes, alignment);
}

WeightPages::~WeightPages() {
    for (const Chunk& chunk : chunks_)
        std::free(chunk.data);
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
