#include "apps/huge_memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "base/checked.h"

namespace espalier {
namespace {

constexpr size_t page = size_t{2} << 20, slack = 4096;

// The number of kB in the line that starts with `key`.
size_t kilobytes(const char* path, const char* key) {
    size_t found = 0;
    if (std::FILE* file = std::fopen(path, "r")) {
        char line[256];
        while (std::fgets(line, sizeof(line), file) != nullptr) {
            if (std::strncmp(line, key, std::strlen(key)) == 0)
                std::sscanf(line + std::strlen(key), "%zu", &found);
        }
        std::fclose(file);
    }
    return found;
}

}  // namespace

void* HugeMemory::do_allocate(size_t bytes, size_t) {
    // Mapped with a page to spare, and cut to whole pages.
    const size_t size = round_up(bytes + slack, page);
    void* place = mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) throw std::bad_alloc();
    auto* begin = static_cast<char*>(place);
    const size_t before = round_up(reinterpret_cast<size_t>(begin), page) - reinterpret_cast<size_t>(begin);
    if (before > 0) munmap(begin, before);
    if (before < page) munmap(begin + before + size, page - before);
    madvise(begin + before, size, huge_ ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return begin + before;
}

void HugeMemory::do_deallocate(void* pointer, size_t bytes, size_t) {
    munmap(pointer, round_up(bytes + slack, page));
}

HugeBlock::HugeBlock(size_t bytes, std::pmr::memory_resource* memory)
    : data_(static_cast<std::byte*>(memory->allocate(bytes + slack, 64))),
      bytes_(bytes + slack),
      memory_(memory) {
    std::memset(data_, 0, bytes_);
}

HugeBlock::~HugeBlock() {
    if (data_ != nullptr) memory_->deallocate(data_, bytes_, 64);
}

void HugeBlock::swap(HugeBlock& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
}

size_t available_bytes() {
    return kilobytes("/proc/meminfo", "MemAvailable:") * 1024;
}

size_t huge_page_bytes() {
    return kilobytes("/proc/self/smaps_rollup", "AnonHugePages:") * 1024;
}

}  // namespace espalier
