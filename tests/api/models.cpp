#include "tests/api/models.h"

#include <cstdio>

#include "tests/tiny_decoder.h"
#include "tests/tiny_model.h"

namespace {

using namespace espalier;
using namespace espalier::test;

AlignedBytes medium_model() {
    ModelSpec spec = bare_spec();
    spec.hidden = 96;
    const uint32_t attention = block_flag::attention | block_flag::qkv_bias | block_flag::output_bias;
    add_block(spec, attention, {forest_part(PartKind::leaf_forest, 3, 3, 20), dense_part(50)});
    add_block(spec, attention, {forest_part(PartKind::neuron_forest, 8, 4, 0)});
    add_block(spec, 0, {dense_part(130)});
    add_head(spec, "sentiment", HeadKind::classifier, 2, {"negative", "positive"}, 96);
    // Stored in float32 and scaled by their inputs, so that activations keep their size.
    auto tensors = random_tensors(spec, only(TensorType::f32), 7);
    for (TensorSource& tensor : tensors) {
        if (tensor.type != TensorType::f32 || tensor.dimensions.size() < 2) continue;
        tensor.data = [inner = tensor.data] {
            auto bytes = inner();
            auto* values = reinterpret_cast<float*>(bytes.data());
            for (size_t i = 0; i < bytes.size() / sizeof(float); ++i)
                values[i] *= 0.3F;
            return bytes;
        };
    }
    return model_to_memory(spec, std::move(tensors));
}

AlignedBytes bare_model() {
    ModelSpec spec = bare_spec();
    spec.tokenizer = {};
    add_block(spec, block_flag::attention, {dense_part(5)});
    return model_to_memory(spec, random_tensors(spec, only(TensorType::f32)));
}

const void* given(const AlignedBytes& model, size_t* bytes) {
    *bytes = model.span().size();
    return model.span().data();
}

}  // namespace

extern "C" const void* tiny_model_bytes(size_t* bytes) {
    static const AlignedBytes model = tiny_model();
    return given(model, bytes);
}

extern "C" const void* medium_model_bytes(size_t* bytes) {
    static const AlignedBytes model = medium_model();
    return given(model, bytes);
}

extern "C" const void* bare_model_bytes(size_t* bytes) {
    static const AlignedBytes model = bare_model();
    return given(model, bytes);
}

extern "C" const void* decoder_model_bytes(size_t* bytes) {
    static const AlignedBytes model = TinyDecoder{}.bytes();
    return given(model, bytes);
}

extern "C" int write_bytes(const char* path, const void* data, size_t bytes) {
    std::FILE* file = std::fopen(path, "wb");
    if (file == nullptr) return 0;
    const bool good = std::fwrite(data, 1, bytes, file) == bytes;
    return std::fclose(file) == 0 && good ? 1 : 0;
}
