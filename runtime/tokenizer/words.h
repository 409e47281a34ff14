// How byte-level tokenizers part a text into words before they merge: no merge goes over a word's end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace espalier {

enum class WordRule : uint8_t {
    whole,  // the text is one word
    // GPT-2's pattern, which the package `tokenizers` calls ByteLevel(use_regex):
    //   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    gpt2,
    // Llama 3's:
    //   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
    //   \s*[\r\n]+|\s+(?!\S)|\s+
    llama3,
};

// The bytes of the first word of a text of well-formed UTF-8 that is not empty.
size_t first_word(std::string_view text, WordRule rule) noexcept;

// The bytes up to the first digit of any script, or of that digit if the text begins with one (Digits, one
// by one, of the package `tokenizers`): parts that are then parted into words each by itself.
size_t first_digit_part(std::string_view text) noexcept;

}  // namespace espalier
