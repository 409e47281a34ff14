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
