// Memory for weights in huge pages.
#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>

#include "runtime/memory.h"

using namespace espalier;

TEST_CASE("large pieces begin at huge pages, small ones come from upstream, all go back") {
    HookResource upstream({});
    HugePages pages(&upstream);
    constexpr size_t page = size_t{2} << 20;
    void* small = pages.allocate(1000, 64);
    CHECK(upstream.live_bytes() == 1000);
    for (const size_t bytes : {page, page + 1, 3 * page - 64}) {
        CAPTURE(bytes);
        void* large = pages.allocate(bytes, 64);
        CHECK(reinterpret_cast<uintptr_t>(large) % page == 0);
        CHECK(upstream.live_bytes() == 1000);
        std::memset(large, 1, bytes);
        pages.deallocate(large, bytes, 64);
    }
    pages.deallocate(small, 1000, 64);
    CHECK(upstream.live_bytes() == 0);
}
