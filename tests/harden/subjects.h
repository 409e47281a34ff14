// Models that between them have every kind of record, part, tokenizer, storage type and layout: what is
// spoilt.
#pragma once

#include <string>
#include <vector>

#include "tests/tiny_decoder.h"
#include "tests/tiny_model.h"

namespace espalier::test {

struct Subject {
    std::string name;
    AlignedBytes bytes;
};

// Of sizes that pack, in 8 bits, turned. Scales are what the rows' largest steps make them.
inline AlignedBytes packed_model() {
    ModelSpec spec = bare_spec();
    spec.hidden = 32;
    add_block(spec, block_flag::attention | block_flag::qkv_bias | block_flag::output_bias,
              {dense_part(16), forest_part(PartKind::leaf_forest, 2, 2, 16)});
    add_block(spec, block_flag::attention, {forest_part(PartKind::neuron_forest, 2, 2, 0)});
    add_head(spec, "sentiment", HeadKind::classifier, 2, {"negative", "positive"}, 32);
    auto tensors = random_tensors(spec, [](const TensorNeed& need) {
        return need.rotation != Rotation::none ? TensorType::s8 : TensorType::f32;
    });
    for (TensorSource& tensor : tensors) {
        for (const TensorNeed& need : tensors_of(spec)) {
            if (tensor.name == need.name.text && need.rotation != Rotation::none)
                tensor.layout = may_be_packed(need) ? TensorLayout::packed : TensorLayout::rotated;
        }
    }
    return model_to_memory(spec, std::move(tensors));
}

inline AlignedBytes pre_norm_model() {
    ModelSpec spec = bare_spec();
    spec.norm = Norm::rms_norm;
    spec.norm_placement = NormPlacement::pre;
    spec.flags = model_flag::final_norm | model_flag::normalise_output;
    spec.positions = Positions::none;
    spec.pooling = Pooling::last;
    spec.tokenizer = {};
    add_block(spec, block_flag::attention, {dense_part(3), dense_part(4)});
    add_block(spec, block_flag::parallel, {forest_part(PartKind::leaf_forest, 1, 0, 0)});
    return model_to_memory(spec, random_tensors(spec, only(TensorType::f16)));
}

inline AlignedBytes byte_level_decoder() {
    std::vector<std::string> pieces;
    pieces.reserve(260);
    for (int byte = 0; byte < 256; ++byte)
        pieces.emplace_back(1, static_cast<char>(byte));
    pieces.insert(pieces.end(), {"ab", "abc", "</s>", "<t>"});
    ModelSpec s = TinyDecoder{}.spec();
    s.vocabulary = static_cast<uint32_t>(pieces.size());
    s.tokenizer = {};
    s.tokenizer.kind = TokenizerKind::byte_level_bpe;
    s.tokenizer.flags = tokenizer_flag::llama3_words | tokenizer_flag::single_digits |
                        tokenizer_flag::whole_words | tokenizer_flag::added_tokens;
    s.tokenizer.max_tokens = s.max_positions;
    s.tokenizer.end = 258;
    auto tensors = random_tensors(s, only(TensorType::f32), 11);
    std::erase_if(tensors, [](const TensorSource& t) { return t.name.starts_with("tokenizer."); });
    add_vocabulary(tensors, pieces);
    tensors.push_back(tensor_of("tokenizer.merges", TensorType::u32, {2, 4},
                                std::vector<uint32_t>{'a', 'b', 256, 0, 256, 'c', 257, 1}));
    tensors.push_back(
        tensor_of("tokenizer.added", TensorType::u32, {2, 2}, std::vector<uint32_t>{258, 1, 259, 0}));
    return model_to_memory(s, std::move(tensors));
}

inline std::vector<Subject> subjects() {
    std::vector<Subject> all;
    all.push_back({"tiny", tiny_model()});
    all.push_back({"packed", packed_model()});
    all.push_back({"pre-norm", pre_norm_model()});
    all.push_back({"decoder", TinyDecoder{}.bytes()});
    all.push_back({"gated decoder", TinyDecoder{.tied = true, .gated_trees = true}.bytes()});
    all.push_back({"byte-level decoder", byte_level_decoder()});
    return all;
}

}  // namespace espalier::test
