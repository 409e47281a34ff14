// What BERT's text normalisation needs to know about a code point, exactly as the package `tokenizers` knows
// it: categories of Unicode 8, lower case of Unicode 17, decomposition of Unicode 9. All stands in
// unicode_tables.inc, 35 KB generated from that package.
#pragma once

#include <cstddef>
#include <cstdint>

namespace espalier::unicode {

enum Fact : uint8_t {
    control = 1,      // clean_text drops it (NUL and U+FFFD among them)
    whitespace = 2,   // separates words
    punctuation = 4,  // a word of its own
    nonspacing_mark = 8,
    cjk = 16,            // an ideograph of the blocks that BERT sets apart
    normalizes = 32,     // has a canonical decomposition or a combining class
    has_lower_case = 64  // to_lower changes it
};

// The facts of a code point, or-ed.
uint8_t facts(char32_t code_point) noexcept;

constexpr size_t longest_decomposition = 4;
constexpr size_t longest_lower_case = 2;

// Stores the full canonical decomposition (the code point itself where it has none), says how long it is.
size_t decompose(char32_t code_point, char32_t (&out)[longest_decomposition]) noexcept;

// The canonical combining class of a code point that has no decomposition; 0 for one that stays where it is.
uint8_t combining_class(char32_t code_point) noexcept;

// Stores the lower case (the code point itself where it has none), says how long it is. No context is
// looked at: capital sigma becomes σ at the end of a word too.
size_t to_lower(char32_t code_point, char32_t (&out)[longest_lower_case]) noexcept;

struct Decoded {
    char32_t code_point;
    size_t bytes;
};

// The code point at `text`, which must lie before `end`. Each maximal ill-formed part is one U+FFFD, as in
// Python's decode(errors="replace").
Decoded decode_utf8(const char* text, const char* end) noexcept;

// Stores 1 to 4 bytes, says how many.
size_t encode_utf8(char32_t code_point, char* out) noexcept;

}  // namespace espalier::unicode
