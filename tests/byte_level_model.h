// A tiny decoder with a byte-level tokenizer of tests/data/byte_level.
#pragma once

#include "tests/imported_tokenizer.h"

namespace espalier::test {

inline constexpr uint32_t byte_level_vocabulary = 610;  // some rows have no token

inline AlignedBytes byte_level_model(const std::string& tokenizer_json) {
    return model_with_tokenizer(byte_level_vocabulary,
                                [&](Import& import) { import_tokenizer_json(import, tokenizer_json); });
}

inline AlignedBytes byte_level_model_of(const char* name) {
    return byte_level_model(std::string(ESPALIER_TEST_DATA "/byte_level/") + name + ".json");
}

}  // namespace espalier::test
