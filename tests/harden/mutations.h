// Every way to spoil one field of a model file's header and directory: its bytes as a 32-bit and as a 64-bit
// number become 0, 1, the largest, the one below, the sign turned, one more, one less, or what the fields
// beside it hold.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "tests/format/patch.h"

namespace espalier::test {

struct Mutation {
    uint64_t offset = 0;
    uint32_t bytes = 0;  // 4 or 8
    uint64_t value = 0;
};

inline uint64_t number_at(std::span<const std::byte> file, uint64_t offset, uint32_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, file.data() + offset, bytes);
    return value;
}

inline void apply(std::span<std::byte> file, const Mutation& m) {
    std::memcpy(file.data() + m.offset, &m.value, m.bytes);
}

inline uint64_t end_of_directory(std::span<const std::byte> file) {
    layout::FileHeader header;
    std::memcpy(&header, file.data(), sizeof(header));
    return header.header_bytes + header.directory_bytes;
}

inline std::vector<Mutation> mutations_of(std::span<const std::byte> file) {
    std::vector<Mutation> all;
    const uint64_t end = end_of_directory(file);
    for (const uint32_t bytes : {4u, 8u}) {
        const uint64_t most = bytes == 4 ? UINT32_MAX : UINT64_MAX;
        for (uint64_t at = 0; at + bytes <= end; at += bytes) {
            const uint64_t old = number_at(file, at, bytes);
            uint64_t values[] = {0,
                                 1,
                                 most,
                                 most - 1,
                                 old ^ (most / 2 + 1),
                                 (old + 1) & most,
                                 (old - 1) & most,
                                 at >= bytes ? number_at(file, at - bytes, bytes) : old,
                                 at + 2 * bytes <= end ? number_at(file, at + bytes, bytes) : old};
            for (size_t i = 0; i < std::size(values); ++i) {
                bool repeats = values[i] == old;
                for (size_t before = 0; before < i; ++before)
                    repeats = repeats || values[before] == values[i];
                if (!repeats) all.push_back({at, bytes, values[i]});
            }
        }
    }
    return all;
}

}  // namespace espalier::test
