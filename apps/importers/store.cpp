// Float32 tensors into stored types.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "apps/importers/import.h"
#include "base/error.h"
#include "base/float16.h"
#include "kernels/dense/panel_pack.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/rotate.h"

namespace espalier {

Precision precision_named(const std::string& name) {
    if (name == "f32") return Precision::f32;
    if (name == "f16") return Precision::f16;
    if (name == "bf16") return Precision::bf16;
    if (name == "int8") return Precision::int8;
    throw Error(Status::invalid_argument, "--precision: expected f32, f16, bf16 or int8, found %s",
                name.c_str());
}

namespace {

std::vector<float> finite_values(const FloatTensor& tensor) {
    std::vector<float> values = tensor.values();
    for (size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i]))
            throw Error(Status::bad_model, "tensor %s: value %zu: expected a finite number, found %g",
                        tensor.name.c_str(), i, static_cast<double>(values[i]));
    }
    return values;
}

template <typename T>
std::vector<std::byte> as_bytes(const std::vector<T>& values) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

std::vector<std::byte> halves(const FloatTensor& tensor, bool bfloat) {
    const auto values = finite_values(tensor);
    std::vector<uint16_t> out(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
        out[i] = bfloat ? bfloat_from_float(values[i]) : half_from_float(values[i]);
        if (!bfloat && (out[i] & 0x7fffu) == 0x7c00u)
            throw Error(Status::bad_model, "tensor %s: value %zu: %g does not fit f16 (use bf16 or f32)",
                        tensor.name.c_str(), i, static_cast<double>(values[i]));
    }
    return as_bytes(out);
}

std::vector<float> scales_of(const std::vector<float>& values, size_t length) {
    std::vector<float> scales(values.size() / length);
    for (size_t r = 0; r < scales.size(); ++r)
        scales[r] = row_scale(values.data() + r * length, length);
    return scales;
}

// As 8-bit rows are stored: turned where the tensor may be, in double precision, so that what is stored does
// not depend on an order of additions.
std::vector<float> rotated_values(const FloatTensor& tensor, Rotation rotation) {
    auto given = finite_values(tensor);
    if (rotation == Rotation::none) return given;
    std::vector<double> values(given.begin(), given.end());
    const size_t rank = tensor.dimensions.size(), rows = rank > 1 ? tensor.dimensions[rank - 2] : 1;
    rotate_tensor(values.data(), values.size(), rows, tensor.dimensions.back(),
                  rotation == Rotation::before_last);
    std::vector<float> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(), [](double v) { return static_cast<float>(v); });
    return out;
}

// layout: packed, or one that keeps rows as they are.
std::vector<std::byte> quantized(const FloatTensor& tensor, Rotation rotation, TensorLayout layout) {
    const auto values = rotated_values(tensor, rotation);
    const size_t length = tensor.dimensions.back();
    const auto scales = scales_of(values, length);
    std::vector<int8_t> out(values.size());
    for (size_t r = 0; r < scales.size(); ++r)
        quantize_row(values.data() + r * length, scales[r], out.data() + r * length, length);
    if (layout != TensorLayout::packed) return as_bytes(out);
    std::vector<uint8_t> packed(out.size());
    pack_bytes({out.size(), tensor.dimensions[tensor.dimensions.size() - 2], length,
                rotation == Rotation::before_last},
               out.data(), packed.data());
    return as_bytes(packed);
}

// As the kernels read them where that takes no more room: nothing is copied when the model is opened.
TensorLayout layout_of_bytes(const TensorNeed& need) {
    if (may_be_packed(need)) return TensorLayout::packed;
    return need.rotation != Rotation::none ? TensorLayout::rotated : TensorLayout::row_major;
}

TensorType type_for(const FloatTensor& tensor, bool weight, Precision precision) {
    if (!weight || precision == Precision::f32 || tensor.name.ends_with("node.weight"))
        return TensorType::f32;
    if (precision == Precision::bf16) return TensorType::bf16;
    if (precision == Precision::f16) return TensorType::f16;
    const bool few_rows_of_unlike_values = tensor.name == "embeddings.position" ||
                                           tensor.name == "embeddings.type" ||
                                           tensor.name.ends_with("leaf.bias");
    return few_rows_of_unlike_values ? TensorType::f16 : TensorType::s8;
}

}  // namespace

std::vector<TensorSource> store(Import& import, Precision precision) {
    std::vector<TensorSource> out = std::move(import.ready);
    const auto needs = tensors_of(import.spec);
    for (const FloatTensor& tensor : import.tensors) {
        TensorNeed needed;
        needed.role = TensorRole::vector;
        for (const TensorNeed& need : needs) {
            if (tensor.name == need.name.text) needed = need;
        }
        const Rotation rotation = needed.rotation;
        TensorSource source;
        source.name = tensor.name;
        source.dimensions = tensor.dimensions;
        source.type = type_for(tensor, needed.role == TensorRole::weight, precision);
        switch (source.type) {
            case TensorType::f16:
                source.data = [tensor] { return halves(tensor, false); };
                break;
            case TensorType::bf16:
                source.data = [tensor] { return halves(tensor, true); };
                break;
            case TensorType::s8:
                source.layout = layout_of_bytes(needed);
                source.data = [tensor, rotation, layout = source.layout] {
                    return quantized(tensor, rotation, layout);
                };
                break;
            default:
                source.data = [tensor] { return as_bytes(finite_values(tensor)); };
                break;
        }
        if (source.type == TensorType::s8) {
            source.scales = TensorScales::per_row;
            TensorSource scale;
            scale.name = tensor.name + ".scale";
            uint64_t rows = 1;
            for (size_t axis = 0; axis + 1 < tensor.dimensions.size(); ++axis)
                rows *= tensor.dimensions[axis];
            scale.dimensions = {rows};
            scale.data = [tensor, rotation] {
                return as_bytes(scales_of(rotated_values(tensor, rotation), tensor.dimensions.back()));
            };
            out.push_back(std::move(scale));
        }
        out.push_back(std::move(source));
    }
    return out;
}

}  // namespace espalier
