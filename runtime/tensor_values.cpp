#include "runtime/tensor_values.h"

#include <algorithm>

#include "kernels/dense/panel_pack.h"
#include "kernels/quantize/rotate.h"
#include "model_format/schema.h"

namespace espalier {

const float* TensorValues::scales_of(const TensorView& tensor) const {
    if (tensor.scales == TensorScales::none) return nullptr;
    return file_.at(tensor_name("%.*s.scale", static_cast<int>(tensor.name.size()), tensor.name.data()))
        .as<float>();
}

// Packed bytes as rows; before_last: what products sum over.
const std::byte* TensorValues::unpacked(const TensorView& tensor, bool before_last) {
    if (unpacked_.size() < tensor.elements()) unpacked_.resize(tensor.elements());
    unpack_bytes({tensor.elements(), tensor.dimensions[tensor.rank - 2], tensor.row_length(), before_last},
                 tensor.as<uint8_t>(), unpacked_.data());
    return reinterpret_cast<const std::byte*>(unpacked_.data());
}

const float* TensorValues::widened(const TensorView& tensor, float* target, bool before_last) {
    if (tensor.type == TensorType::f32) return tensor.as<float>();
    const size_t rows = tensor.rows(), length = tensor.row_length();
    const float* scales = scales_of(tensor);
    const bool by_row = tensor.scales == TensorScales::per_row;
    const std::byte* bytes =
        tensor.layout == TensorLayout::packed ? unpacked(tensor, before_last) : tensor.bytes.data();
    for (size_t r = 0; r < rows; ++r) {
        float* row = target + r * length;
        kernels_.widen(tensor.type, bytes + r * length * bytes_of(tensor.type), by_row ? scales[r] : 1.0F,
                       row, length);
        for (size_t c = 0; c < length && scales != nullptr && !by_row; ++c)
            row[c] *= scales[c];
    }
    return target;
}

const float* TensorValues::passing(const char* name, bool rotated, bool before_last) {
    release();
    const TensorView& tensor = file_.at(name);
    passed_ = &tensor;
    const bool turns = rotated != (tensor.layout != TensorLayout::row_major);
    if (tensor.type == TensorType::f32 && !turns) return tensor.as<float>();
    if (scratch_.size() < tensor.elements()) scratch_.resize(tensor.elements());
    const float* values = widened(tensor, scratch_.data(), before_last);
    if (!turns) return values;
    if (values != scratch_.data()) std::copy(values, values + tensor.elements(), scratch_.data());
    const size_t rows = tensor.rank > 1 ? tensor.dimensions[tensor.rank - 2] : 1;
    rotate_tensor(scratch_.data(), tensor.elements(), rows, tensor.row_length(), before_last);
    return scratch_.data();
}

void TensorValues::release() {
    if (passed_ != nullptr) file_.release(*passed_);
}

}  // namespace espalier
