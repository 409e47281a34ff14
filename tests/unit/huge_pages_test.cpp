// Memory for weights in huge pages.
#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/memory.h"

using namespace espalier;

TEST_CASE("weights lie one behind the other in huge pages, small ones come from upstream, all go back") {
    HookResource upstream({});
    {
        WeightPages pages(&upstream);
        constexpr size_t page = size_t{2} << 20;
        void* small = pages.allocate(1000, 64);
        const size_t live = upstream.live_bytes();
        CHECK(live >= 1000);
        struct Piece {
            std::byte* data;
            size_t bytes;
        };
        std::vector<Piece> pieces;
        for (const size_t bytes : {page - 1, size_t{1} << 20, size_t{3}, 3 * page - 64, 20 * page}) {
            pieces.push_back({static_cast<std::byte*>(pages.allocate(bytes, 64)), bytes});
            CHECK(reinterpret_cast<uintptr_t>(pieces.back().data) % 64 == 0);
            std::memset(pieces.back().data, static_cast<int>(pieces.size()), bytes);
        }
        for (size_t i = 0; i < pieces.size(); ++i) {
            const std::vector<std::byte> expected(pieces[i].bytes, static_cast<std::byte>(i + 1));
            CHECK(std::memcmp(pieces[i].data, expected.data(), expected.size()) == 0);
        }
        for (const Piece& piece : pieces)
            pages.deallocate(piece.data, piece.bytes, 64);
        pages.deallocate(small, 1000, 64);
    }
    CHECK(upstream.live_bytes() == 0);
}
