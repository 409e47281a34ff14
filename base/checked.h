// Arithmetic on sizes that come from outside: every product and sum is checked before it is used.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

namespace espalier {

inline bool checked_multiply(uint64_t a, uint64_t b, uint64_t& result) {
    return !__builtin_mul_overflow(a, b, &result);
}

inline bool checked_add(uint64_t a, uint64_t b, uint64_t& result) {
    return !__builtin_add_overflow(a, b, &result);
}

// Rounds up to a multiple of `step`, a power of two; false where that overflows.
inline bool checked_round_up(uint64_t value, uint64_t step, uint64_t& result) {
    if (!checked_add(value, step - 1, result)) return false;
    result &= ~(step - 1);
    return true;
}

// For sizes that are known to be small (already validated or our own).
constexpr uint64_t round_up(uint64_t value, uint64_t step) {
    return (value + step - 1) / step * step;
}

}  // namespace espalier
