// A tiny decoder with a byte-level tokenizer of tests/data/byte_level.
#pragma once

#include "apps/importers/llama.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {

inline constexpr uint32_t byte_level_vocabulary = 610;  // some rows have no token

inline AlignedBytes byte_level_model(const std::string& tokenizer_json) {
    Import import;
    import.spec.vocabulary = byte_level_vocabulary;
    import_tokenizer_json(import, tokenizer_json);
    ModelSpec spec = TinyDecoder{}.spec();
    spec.vocabulary = byte_level_vocabulary;
    import.spec.tokenizer.max_tokens = spec.max_positions;
    spec.tokenizer = import.spec.tokenizer;
    auto tensors = random_tensors(spec, only(TensorType::f32), 11);
    std::erase_if(tensors, [](const TensorSource& t) { return t.name.starts_with("tokenizer."); });
    for (TensorSource& tensor : import.ready)
        tensors.push_back(std::move(tensor));
    return model_to_memory(spec, std::move(tensors));
}

inline AlignedBytes byte_level_model_of(const char* name) {
    return byte_level_model(std::string(ESPALIER_TEST_DATA "/byte_level/") + name + ".json");
}

}  // namespace espalier::test
