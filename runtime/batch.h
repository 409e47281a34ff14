// What goes through the block loop, and who looks on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier {

// Sequences packed end to end; see espalier_batch.
struct Batch {
    std::span<const int32_t> ids;
    std::span<const uint8_t> types;     // empty: all 0
    std::span<const uint32_t> offsets;  // sequences + 1

    size_t sequences() const { return offsets.size() - 1; }
    size_t tokens() const { return ids.size(); }
    size_t length(size_t s) const { return offsets[s + 1] - offsets[s]; }
};

// Who looks on. layer: hidden states after the embedding (0) and after each block (1 ..). ffn_input: what the
// parts of a block read, before they run.
struct Observers {
    using Function = void (*)(void* user, uint32_t layer, const float* values, size_t tokens);
    struct Hook {
        Function function = nullptr;
        void* user = nullptr;
        void operator()(size_t layer, const float* values, size_t tokens) const {
            if (function != nullptr) function(user, static_cast<uint32_t>(layer), values, tokens);
        }
    };
    Hook layer, ffn_input;
    // What passes leave out, to see what it does: a block, and the attention of a block.
    static constexpr size_t none = SIZE_MAX;
    size_t without_block = none, without_attention = none;

    bool any() const { return layer.function != nullptr || ffn_input.function != nullptr; }
};

}  // namespace espalier
