// Where tokenizers put their ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier {

// Counts all ids, keeps those that fit. Setting `count` back takes ids back.
struct IdSink {
    std::span<int32_t> ids;
    size_t count = 0;

    void push(int32_t id) {
        if (count < ids.size()) ids[count] = id;
        ++count;
    }
};

}  // namespace espalier
