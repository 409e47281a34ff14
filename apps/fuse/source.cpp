#include "apps/fuse/source.h"

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/dense/panel_pack.h"
#include "kernels/quantize/rotate.h"

namespace espalier {

Precision SourceModel::precision() const {
    Precision narrowest = Precision::f32;
    for (const TensorView& tensor : file_.tensors()) {
        if (!tensor.name.starts_with("blocks.")) continue;
        if (tensor.type == TensorType::s8) return Precision::int8;
        if (tensor.type == TensorType::bf16) narrowest = Precision::bf16;
        if (tensor.type == TensorType::f16 && narrowest == Precision::f32) narrowest = Precision::f16;
    }
    return narrowest;
}

std::vector<float> SourceModel::values(const std::string& name) const {
    const TensorView& tensor = file_.at(name);
    const size_t length = tensor.row_length(), rows = tensor.rows();
    const float* scales =
        tensor.scales == TensorScales::none ? nullptr : file_.at(name + ".scale").as<float>();
    const KernelTable& kernels = kernel_table(Isa::scalar);
    const bool before_last = name.ends_with("leaf.down.weight");  // what its products sum over
    const std::byte* bytes = tensor.bytes.data();
    std::vector<int8_t> unpacked;
    if (tensor.layout == TensorLayout::packed) {
        unpacked.resize(tensor.elements());
        unpack_bytes({unpacked.size(), tensor.dimensions[tensor.rank - 2], length, before_last},
                     tensor.as<uint8_t>(), unpacked.data());
        bytes = reinterpret_cast<const std::byte*>(unpacked.data());
    }
    std::vector<float> out(tensor.elements());
    for (size_t r = 0; r < rows; ++r) {
        float* row = out.data() + r * length;
        kernels.widen(tensor.type, bytes + r * length * bytes_of(tensor.type),
                      tensor.scales == TensorScales::per_row ? scales[r] : 1.0F, row, length);
        for (size_t c = 0; c < length && tensor.scales == TensorScales::per_column; ++c)
            row[c] *= scales[c];
    }
    if (tensor.layout != TensorLayout::row_major)  // rotated, or packed after it
        rotate_tensor(out.data(), out.size(), tensor.rank > 1 ? tensor.dimensions[tensor.rank - 2] : 1,
                      length, before_last);
    return out;
}

void SourceModel::copy(const std::string& name, const std::string& as, std::vector<TensorSource>& out) const {
    const TensorView& tensor = file_.at(name);
    TensorSource source;
    source.name = as;
    source.type = tensor.type;
    source.layout = tensor.layout;
    source.scales = tensor.scales;
    source.dimensions.assign(tensor.dimensions.begin(), tensor.dimensions.begin() + tensor.rank);
    source.data = [bytes = tensor.bytes] { return std::vector<std::byte>(bytes.begin(), bytes.end()); };
    out.push_back(std::move(source));
    if (tensor.scales != TensorScales::none) copy(name + ".scale", as + ".scale", out);
}

}  // namespace espalier
