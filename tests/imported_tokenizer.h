// A tiny decoder with the tokenizer that an importer reads.
#pragma once

#include <functional>

#include "apps/importers/llama.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {

inline AlignedBytes model_with_tokenizer(uint32_t vocabulary, const std::function<void(Import&)>& read) {
    Import import;
    import.spec.vocabulary = vocabulary;
    read(import);
    ModelSpec spec = TinyDecoder{}.spec();
    spec.vocabulary = vocabulary;
    import.spec.tokenizer.max_tokens = spec.max_positions;
    spec.tokenizer = import.spec.tokenizer;
    auto tensors = random_tensors(spec, only(TensorType::f32), 11);
    std::erase_if(tensors, [](const TensorSource& t) { return t.name.starts_with("tokenizer."); });
    for (TensorSource& tensor : import.ready)
        tensors.push_back(std::move(tensor));
    return model_to_memory(spec, std::move(tensors));
}

// The whole text, and the ids as text again.
inline std::vector<int32_t> encoded(const Model& model, std::string_view text, bool plain_special = false) {
    BpeScratch scratch(std::pmr::get_default_resource());
    std::vector<int32_t> ids(4 * text.size() + 8);
    ids.resize(model.pieces().encode(text, plain_special, ids, scratch));
    return ids;
}
inline std::string decoded(const Model& model, const std::vector<int32_t>& ids) {
    std::string text;
    Bpe::Piece piece;
    for (size_t i = 0; i < ids.size(); ++i) {
        model.pieces().decode(i == 0 ? -1 : ids[i - 1], ids[i], piece);
        text += piece.text();
    }
    return text;
}

}  // namespace espalier::test
