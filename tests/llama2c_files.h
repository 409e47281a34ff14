// A tiny checkpoint of llama2.c with its tokenizer.bin, as bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace espalier::test {

template <typename T>
void put(std::string& bytes, T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// dim 8, hidden 12, one layer, 4 heads over 2, 8 pieces, 16 positions.
struct Llama2cBytes {
    std::string model, pieces;
    Llama2cBytes() {
        for (const int32_t field : {8, 12, 1, 4, 2, 8, 16})
            put(model, field);
        const size_t floats = 8 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 96 + 8 + 16 * 2;
        for (size_t i = 0; i < floats; ++i)
            put(model, static_cast<float>(i * 37 % 23) / 23 - 0.4F);
        put(pieces, int32_t{5});
        float score = 0;
        for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n", " ", "a", "b", " a", "ab"}) {
            put(pieces, score--);
            put(pieces, static_cast<int32_t>(std::strlen(piece)));
            pieces += piece;
        }
    }
};

}  // namespace espalier::test
