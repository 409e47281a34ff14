#include "kernels/dense/panel_pack.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/float16.h"
#include "kernels/dense/panel.h"
#include "kernels/quantize/quantize.h"

namespace espalier {
namespace {

// As quantize_row rounds: to nearest even, for which adding and taking off 1.5 * 2^23 is enough below 2^22.
// + 128, as words hold it. The bounds are the integer's, so that loops of it become vectors: comparisons of
// floats might trap.
uint8_t quantised(float value, float scale) {
    constexpr float shift = 12582912.0F;
    const float whole = (value / scale + shift) - shift;
    const int32_t steps = std::min(std::max(static_cast<int32_t>(whole), -127), 127);
    return static_cast<uint8_t>(steps + 128);
}

template <TensorType type>
using Stored = std::conditional_t<type == TensorType::f32, uint32_t,
                                  std::conditional_t<type == TensorType::bf16, uint16_t, uint8_t>>;
template <TensorType type>
constexpr Stored<type> zero = type == TensorType::s8 ? 0x80 : 0;

// Values that lie side by side, as words hold them: loops that compilers turn into vectors, whatever they are
// for. Packing is most of opening a model. scales: s8 only, one for all or one each.
template <TensorType type>
void store(const float* values, size_t count, const float* scales, bool one_scale, Stored<type>* target) {
    if constexpr (type == TensorType::f32) {
        std::memcpy(target, values, count * sizeof(float));
    } else if constexpr (type == TensorType::bf16) {
        for (size_t i = 0; i < count; ++i)
            target[i] = bfloat_from_float(values[i]);
    } else if (one_scale && rounds_to_steps(*scales)) {
        const float scale = *scales;
        for (size_t i = 0; i < count; ++i)
            target[i] = quantised(values[i], scale);
    } else {
        for (size_t i = 0; i < count; ++i)
            target[i] =
                !one_scale && rounds_to_steps(scales[i]) ? quantised(values[i], scales[i]) : zero<type>;
    }
}

template <TensorType type>
class Packer {
   public:
    Packer(const MatrixSource& source, size_t k, size_t columns, const float* column_scales,
           const float* k_scales)
        : source_(source), k_(k), columns_(columns), column_scales_(column_scales), k_scales_(k_scales) {}

    // Columns start to end, one panel, at `target`.
    void panel(size_t start, size_t end, uint32_t* target) const {
        if (source_.k_stride == 1) {
            for (size_t column = start; column < end; ++column)
                one_column(column, end - start, target + (column - start));
        } else {
            for (size_t row = 0; row < k_; row += group, target += end - start)
                one_group(row, start, end, target);
        }
    }

   private:
    static constexpr size_t group = panel_group(type);

    const float* scales_at(size_t row, size_t column) const {
        if (type != TensorType::s8) return nullptr;
        return k_scales_ != nullptr ? k_scales_ + row : column_scales_ + column;
    }

    // A column of B that lies in one piece: its words go `stride` apart.
    void one_column(size_t column, size_t stride, uint32_t* target) const {
        constexpr size_t piece = 256;
        Stored<type> values[piece];
        for (size_t row = 0; row < k_; row += piece) {
            const size_t count = std::min(piece, k_ - row), words = (count + group - 1) / group;
            std::fill(values, values + words * group, zero<type>);
            if (column < columns_)
                store<type>(source_.data + column * source_.column_stride + row, count,
                            scales_at(row, column), k_scales_ == nullptr, values);
            for (size_t w = 0; w < words; ++w, target += stride)
                std::memcpy(target, values + w * group, sizeof(uint32_t));
        }
    }

    // One word of every column, of rows of B that lie in one piece each.
    void one_group(size_t row, size_t start, size_t end, uint32_t* target) const {
        constexpr size_t bits = 32 / group;
        const size_t there = columns_ > start ? std::min(columns_, end) - start : 0;
        std::fill(target, target + (end - start), 0);
        for (size_t i = 0; i < group; ++i) {
            Stored<type> values[panel_columns];
            std::fill(values, values + panel_columns, zero<type>);
            if (row + i < k_)
                store<type>(source_.data + (row + i) * source_.k_stride + start, there,
                            scales_at(row + i, start), k_scales_ != nullptr, values);
            for (size_t c = 0; c < end - start; ++c)
                target[c] |= static_cast<uint32_t>(values[c]) << (i * bits);
        }
    }

    MatrixSource source_;
    size_t k_, columns_;
    const float *column_scales_, *k_scales_;
};

template <TensorType type>
void pack(const MatrixSource& source, size_t k, size_t columns, size_t padded_columns,
          const float* column_scales, const float* k_scales, uint32_t* target) {
    const Packer<type> packer(source, k, columns, column_scales, k_scales);
    for (size_t start = 0; start < padded_columns; start += panel_columns) {
        const size_t end = std::min(start + panel_columns, padded_columns);
        packer.panel(start, end, target);
        target += (end - start) * ((k + panel_group(type) - 1) / panel_group(type));
    }
}

}  // namespace

void pack_panels(TensorType type, const MatrixSource& source, size_t k, size_t columns, size_t padded_columns,
                 const float* column_scales, const float* k_scales, uint32_t* target) {
    switch (type) {
        case TensorType::bf16:
            return pack<TensorType::bf16>(source, k, columns, padded_columns, nullptr, nullptr, target);
        case TensorType::s8:
            return pack<TensorType::s8>(source, k, columns, padded_columns, column_scales, k_scales, target);
        default:
            return pack<TensorType::f32>(source, k, columns, padded_columns, nullptr, nullptr, target);
    }
}

namespace {

// visit(place among the packed bytes, place among the values) of all bytes, in the order of the packed ones.
template <class Visit>
void for_each_byte(const ByteMatrices& m, const Visit& visit) {
    constexpr size_t group = panel_group(TensorType::s8);
    const size_t k = m.sums_over_rows ? m.rows : m.row_length,
                 columns = m.sums_over_rows ? m.row_length : m.rows;
    const size_t k_stride = m.sums_over_rows ? m.row_length : 1,
                 column_stride = m.sums_over_rows ? 1 : m.row_length;
    size_t place = 0;
    for (size_t matrix = 0; matrix < m.elements; matrix += m.rows * m.row_length) {
        for (size_t start = 0; start < columns; start += panel_columns) {
            const size_t end = std::min(start + panel_columns, columns);
            for (size_t row = 0; row < k; row += group) {
                for (size_t column = start; column < end; ++column) {
                    for (size_t i = 0; i < group; ++i)
                        visit(place++, matrix + (row + i) * k_stride + column * column_stride);
                }
            }
        }
    }
}

}  // namespace

void pack_bytes(const ByteMatrices& shape, const int8_t* values, uint8_t* packed) {
    for_each_byte(shape, [&](size_t place, size_t value) {
        packed[place] = static_cast<uint8_t>(values[value] + 128);
    });
}

void unpack_bytes(const ByteMatrices& shape, const uint8_t* packed, int8_t* values) {
    for_each_byte(
        shape, [&](size_t place, size_t value) { values[value] = static_cast<int8_t>(packed[place] - 128); });
}

}  // namespace espalier
