#include "runtime/tokenizer/unicode.h"

#include <algorithm>
#include <iterator>

namespace espalier::unicode {
namespace {

// Defines, all sorted:
//   fact_changes    (code point << 8) | the facts of it and its successors up to the next entry
//   class_changes   the same of combining classes
//   lower_case      from `first` on, every code point that has a lower case finds it `distance` away
//   decompositions  (code point << 14) | where its parts begin in `parts`; they end where the next one's
//   begin
struct LowerCase {
    char32_t first;
    int32_t distance;
};
#include "runtime/tokenizer/unicode_tables.inc"

constexpr char32_t replacement = 0xFFFD;
constexpr char32_t capital_i_with_dot = 0x130;  // the one code point whose lower case is two

// Syllables are composed by rule (The Unicode Standard, 3.12): 19 leading consonants, 21 vowels, 28 endings
// of which the first is none.
constexpr char32_t first_syllable = 0xAC00, last_syllable = 0xD7A3;

size_t decompose_syllable(char32_t code_point, char32_t* out) {
    constexpr char32_t endings = 28, vowels = 21;
    const char32_t at = code_point - first_syllable;
    out[0] = 0x1100 + at / (vowels * endings);
    out[1] = 0x1161 + at / endings % vowels;
    if (at % endings == 0) return 2;
    out[2] = 0x11A7 + at % endings;
    return 3;
}

// What a table of changes says of the code point; its first entry is at 0 or what is before it is 0.
template <size_t count>
uint8_t value_at(const uint32_t (&changes)[count], char32_t code_point) {
    const auto* after = std::upper_bound(std::begin(changes), std::end(changes),
                                         static_cast<uint32_t>(code_point) << 8 | 0xFF);
    return after == std::begin(changes) ? uint8_t{0} : static_cast<uint8_t>(*std::prev(after));
}

}  // namespace

uint8_t facts(char32_t code_point) noexcept {
    return value_at(fact_changes, code_point);
}

size_t decompose(char32_t code_point, char32_t (&out)[longest_decomposition]) noexcept {
    out[0] = code_point;
    if (!(facts(code_point) & normalizes)) return 1;
    if (code_point >= first_syllable && code_point <= last_syllable)
        return decompose_syllable(code_point, out);
    constexpr unsigned shift = 14;
    constexpr uint32_t place = (1u << shift) - 1;
    const auto* entry = std::lower_bound(std::begin(decompositions), std::end(decompositions),
                                         static_cast<uint32_t>(code_point) << shift);
    if (entry == std::end(decompositions) || *entry >> shift != code_point) return 1;  // a mark that moves
    const size_t first = entry[0] & place, count = (entry[1] & place) - first;
    std::copy_n(parts + first, count, out);
    return count;
}

uint8_t combining_class(char32_t code_point) noexcept {
    return value_at(class_changes, code_point);
}

size_t to_lower(char32_t code_point, char32_t (&out)[longest_lower_case]) noexcept {
    out[0] = code_point;
    if (!(facts(code_point) & has_lower_case)) return 1;
    if (code_point == capital_i_with_dot) {
        out[0] = U'i';
        out[1] = 0x307;
        return 2;
    }
    const auto after = std::upper_bound(std::begin(lower_case), std::end(lower_case), code_point,
                                        [](char32_t c, const LowerCase& entry) { return c < entry.first; });
    out[0] = static_cast<char32_t>(static_cast<int32_t>(code_point) + std::prev(after)->distance);
    return 1;
}

Decoded decode_utf8(const char* text, const char* end) noexcept {
    const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xC2 || lead > 0xF4) return {replacement, 1};
    const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t code_point = lead & (0x7Fu >> length);
    // The second byte has a narrower range after some leads: no overlong forms, surrogates, or > U+10FFFF.
    unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < length; ++i) {
        if (text + i == end || byte(i) < low || byte(i) > high) return {replacement, i};
        code_point = code_point << 6 | (byte(i) & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    return {code_point, length};
}

size_t encode_utf8(char32_t c, char* out) noexcept {
    const auto tail = [c](unsigned shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
    if (c < 0x80) {
        out[0] = static_cast<char>(c);
        return 1;
    }
    if (c < 0x800) {
        out[0] = static_cast<char>(0xC0 | (c >> 6));
        out[1] = tail(0);
        return 2;
    }
    if (c < 0x10000) {
        out[0] = static_cast<char>(0xE0 | (c >> 12));
        out[1] = tail(6);
        out[2] = tail(0);
        return 3;
    }
    out[0] = static_cast<char>(0xF0 | (c >> 18));
    out[1] = tail(12);
    out[2] = tail(6);
    out[3] = tail(0);
    return 4;
}

}  // namespace espalier::unicode
