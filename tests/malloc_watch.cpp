#include "tests/malloc_watch.h"

#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ESPALIER_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ESPALIER_SANITIZED 1
#endif
#if !defined(ESPALIER_SANITIZED) && defined(__GLIBC__)
#define ESPALIER_WATCHES_MALLOC 1
#else
#define ESPALIER_WATCHES_MALLOC 0
#endif

namespace espalier::test {

thread_local MallocWatch malloc_watch;
const bool watches_malloc = ESPALIER_WATCHES_MALLOC != 0;

namespace {

bool refuses(size_t bytes) {
    MallocWatch& watch = malloc_watch;
    if (!watch.on) return false;
    ++watch.taken;
    if (watch.live + bytes > watch.most) watch.most = watch.live + bytes;
    if (watch.taken != watch.fail_at) return false;
    errno = ENOMEM;
    return true;
}

void* took(void* pointer) {
    if (malloc_watch.on && pointer != nullptr) malloc_watch.live += malloc_usable_size(pointer);
    return pointer;
}

void gives_back(void* pointer) {
    MallocWatch& watch = malloc_watch;
    if (!watch.on || pointer == nullptr) return;
    ++watch.freed;
    const size_t bytes = malloc_usable_size(pointer);
    watch.live -= bytes < watch.live ? bytes : watch.live;  // what was taken before counts for nothing
}

}  // namespace
}  // namespace espalier::test

#if ESPALIER_WATCHES_MALLOC
using espalier::test::gives_back;
using espalier::test::refuses;
using espalier::test::took;

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* pointer, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* pointer);

void* malloc(size_t bytes) {
    return refuses(bytes) ? nullptr : took(__libc_malloc(bytes));
}
void* calloc(size_t count, size_t bytes) {
    return refuses(count * bytes) ? nullptr : took(__libc_calloc(count, bytes));
}
void* realloc(void* pointer, size_t bytes) {
    if (refuses(bytes)) return nullptr;
    gives_back(pointer);
    return took(__libc_realloc(pointer, bytes));
}
void* memalign(size_t alignment, size_t bytes) {
    return refuses(bytes) ? nullptr : took(__libc_memalign(alignment, bytes));
}
void* aligned_alloc(size_t alignment, size_t bytes) {
    return memalign(alignment, bytes);
}
int posix_memalign(void** target, size_t alignment, size_t bytes) {
    void* pointer = memalign(alignment, bytes);
    if (pointer == nullptr) return ENOMEM;
    *target = pointer;
    return 0;
}
void free(void* pointer) {
    gives_back(pointer);
    __libc_free(pointer);
}
}
#else
#if defined(ESPALIER_WRAPS_MALLOC)
// The linker sends what our own code calls here, and the sanitizer keeps its malloc (--wrap).
extern "C" {
void* __real_malloc(size_t bytes);
void* __real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void* pointer);

void* __wrap_malloc(size_t bytes) {
    return espalier::test::refuses(bytes) ? nullptr : espalier::test::took(__real_malloc(bytes));
}
void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return espalier::test::refuses(bytes) ? nullptr
                                          : espalier::test::took(__real_aligned_alloc(alignment, bytes));
}
void __wrap_free(void* pointer) {
    espalier::test::gives_back(pointer);
    __real_free(pointer);
}
}
#endif

namespace {

void* new_bytes(size_t bytes, size_t alignment) {
    if (espalier::test::refuses(bytes)) throw std::bad_alloc();
    void* pointer = nullptr;
    if (posix_memalign(&pointer, std::max(alignment, sizeof(void*)), bytes > 0 ? bytes : 1) != 0)
        throw std::bad_alloc();
    return espalier::test::took(pointer);
}
void delete_bytes(void* pointer) {
#if defined(ESPALIER_WRAPS_MALLOC)
    __wrap_free(pointer);
#else
    espalier::test::gives_back(pointer);
    std::free(pointer);
#endif
}

}  // namespace

// Every form, since a sanitizer has all of its own and tells them apart.
void* operator new(size_t bytes) {
    return new_bytes(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new[](size_t bytes) {
    return new_bytes(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new(size_t bytes, std::align_val_t alignment) {
    return new_bytes(bytes, static_cast<size_t>(alignment));
}
void* operator new[](size_t bytes, std::align_val_t alignment) {
    return new_bytes(bytes, static_cast<size_t>(alignment));
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    try {
        return operator new(bytes);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void operator delete(void* pointer) noexcept {
    delete_bytes(pointer);
}
void operator delete[](void* pointer) noexcept {
    delete_bytes(pointer);
}
void operator delete(void* pointer, size_t) noexcept {
    delete_bytes(pointer);
}
void operator delete[](void* pointer, size_t) noexcept {
    delete_bytes(pointer);
}
void operator delete(void* pointer, std::align_val_t) noexcept {
    delete_bytes(pointer);
}
void operator delete[](void* pointer, std::align_val_t) noexcept {
    delete_bytes(pointer);
}
void operator delete(void* pointer, size_t, std::align_val_t) noexcept {
    delete_bytes(pointer);
}
void operator delete[](void* pointer, size_t, std::align_val_t) noexcept {
    delete_bytes(pointer);
}
void operator delete(void* pointer, const std::nothrow_t&) noexcept {
    delete_bytes(pointer);
}
#endif
