#include "kernels/cpu/peak.h"

#if defined(ESPALIER_X86)
#include "kernels/cpu/peak_x86.h"
#endif

namespace espalier {

PeakKernels peak_kernels([[maybe_unused]] Isa isa, [[maybe_unused]] TensorType type) {
    PeakKernels kernels;
#if defined(ESPALIER_X86)
    if (isa == Isa::avx2) {
        kernels.read = avx2::peak_read;
        if (type == TensorType::f32) kernels.multiply_add = avx2::peak_f32;
    }
    if (isa == Isa::avx512) {
        kernels.read = avx512::peak_read;
        if (type == TensorType::f32) kernels.multiply_add = avx512::peak_f32;
        if (type == TensorType::bf16 && cpu_has_bf16()) kernels.multiply_add = avx512::peak_bf16;
        if (type == TensorType::s8 && cpu_has_vnni()) kernels.multiply_add = avx512::peak_s8;
    }
#endif
    return kernels;
}

}  // namespace espalier
