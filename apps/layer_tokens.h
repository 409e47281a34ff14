// Tokens for bench layer: random normal, new for every call, in the type of a precision's rows.
#pragma once

#include "apps/huge_memory.h"
#include "apps/random_numbers.h"
#include "base/types.h"

namespace espalier {

// How tokens of a call differ: all independent; one token and hardly visible noise, so that all take one way;
// chosen so that they spread over the leaves as evenly as can be.
enum class Routing { random, same, distinct };

// 8-bit tokens come in two forms of the same numbers: with one scale a token (forests), and with one scale
// for all (oneDNN's static quantisation).
struct Tokens {
    const std::byte* x = nullptr;         // [count, hidden]
    const float* scale = nullptr;         // [count], 8-bit only
    const std::byte* x_static = nullptr;  // [count, hidden]; x, where not 8-bit
    size_t count = 0, row_bytes = 0;

    Tokens slice(size_t begin, size_t length) const {
        return {x + begin * row_bytes, scale == nullptr ? nullptr : scale + begin,
                x_static + begin * row_bytes, length, row_bytes};
    }
};
inline constexpr float static_token_scale = largest_normal / 127.0F;

class TokenBuffer {
   public:
    TokenBuffer(TensorType type, size_t hidden, size_t most, std::pmr::memory_resource* memory);
    // The first `count` tokens anew. same_run > 1: runs of so many that are one token and noise.
    void fill(size_t count, size_t same_run, uint64_t& state);
    void copy(const TokenBuffer& other, size_t from, size_t to);
    // Token t in float32, as its stored values stand for it.
    void widen(size_t t, bool with_static_scale, float* target) const;
    Tokens tokens(size_t count) const;

   private:
    void store(size_t t);

    TensorType type_;
    size_t hidden_;
    HugeBlock x_, static_, scale_;
    std::vector<float> row_, base_;
};

// value / scale, to the nearest whole number of at most 127.
void round_to_s8(const float* row, float scale, int8_t* target, size_t count);

}  // namespace espalier
