// How an input of the reader's fuzzer stands for a model file: the file without its 64 KiB of padding at the
// end, then one byte of choices. So inputs stay small, and mutations hit what is read.
#pragma once

#include "kernels/cpu/isa.h"
#include "tests/format/patch.h"

namespace espalier::fuzz {

struct Choices {
    explicit Choices(uint8_t byte) : byte_(byte) {}
    bool hashes_fit() const { return (byte_ & 1) != 0; }   // and the header names the file's size
    bool has_padding() const { return (byte_ & 2) == 0; }  // zeros at the end, as every file has them
    Isa isa() const { return available_isas()[(byte_ >> 2 & 3) % available_isas().size()]; }
    const char* precision() const {
        constexpr const char* names[] = {"", "f32", "bf16", "int8"};
        return names[byte_ >> 4 & 3];
    }
    bool verifies() const { return (byte_ & 64) != 0; }

   private:
    uint8_t byte_;
};

// Of exactly the file's size, so that the address sanitizer sees a read past the end.
inline AlignedBytes file_of(const uint8_t* data, size_t size, const Choices& choices) {
    AlignedBytes bytes(size + (choices.has_padding() ? layout::end_padding : 0));
    const auto span = bytes.span();
    std::memset(span.data(), 0, span.size());
    std::memcpy(span.data(), data, size);
    if (!choices.hashes_fit()) return bytes;
    if (size >= sizeof(layout::FileHeader)) {
        const uint64_t whole = span.size();
        std::memcpy(span.data() + offsetof(layout::FileHeader, file_bytes), &whole, sizeof(whole));
    }
    test::rehash(span);
    return bytes;
}

}  // namespace espalier::fuzz
