// Stored types to float32 and back; specification: quantize_scalar.cpp.
#include <arm_neon.h>

#include "kernels/cpu/neon.h"
#include "kernels/quantize/round-inl.h"
#include "kernels/quantize/widen-inl.h"

namespace espalier::neon {
namespace {

float32x4_t load4(TensorType type, const void* source, size_t i, float scale) {
    if (type == TensorType::f16)
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(static_cast<const uint16_t*>(source) + i)));
    if (type == TensorType::bf16)
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(static_cast<const uint16_t*>(source) + i), 16));
    const auto* bytes = static_cast<const int8_t*>(source) + i;
    const int32_t values[4] = {bytes[0], bytes[1], bytes[2], bytes[3]};
    return vmulq_n_f32(vcvtq_f32_s32(vld1q_s32(values)), scale);
}

template <bool add>
void widen_to(TensorType type, const void* source, float scale, float* target, size_t count) {
    widen_numbers<NeonArch, add>(type, source, scale, target, count,
                                 [=](size_t i) { return Floats<NeonArch>(load4(type, source, i, scale)); });
}

}  // namespace

void widen(TensorType type, const void* source, float scale, float* target, size_t count) {
    widen_to<false>(type, source, scale, target, count);
}
void add_widened(TensorType type, const void* source, float scale, float* target, size_t count) {
    widen_to<true>(type, source, scale, target, count);
}

void round(TensorType type, bool rotated, const float* x, size_t rows, size_t columns, void* y,
           float* scale) {
    round_rows<NeonArch>(type, rotated, x, rows, columns, y, scale);
}

}  // namespace espalier::neon
