// Stored types to float32 and back; specification: quantize_scalar.cpp. Intrinsics: xsimd 8.1 has no half
// precision.
#include <immintrin.h>

#include "kernels/cpu/avx2.h"
#include "kernels/quantize/round-inl.h"
#include "kernels/quantize/widen-inl.h"

namespace espalier::avx2 {
namespace {

__m256 load8(TensorType type, const void* source, size_t i, __m256 scale) {
    if (type == TensorType::s8) {
        const auto* bytes = static_cast<const int8_t*>(source) + i;
        const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
        return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(packed)));
    }
    const __m128i packed =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(source) + i));
    if (type == TensorType::f16) return _mm256_cvtph_ps(packed);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
}

template <bool add>
void widen_to(TensorType type, const void* source, float scale, float* target, size_t count) {
    const __m256 scales = _mm256_set1_ps(scale);
    widen_numbers<xsimd::fma3<xsimd::avx2>, add>(type, source, scale, target, count, [=](size_t i) {
        return Floats<xsimd::fma3<xsimd::avx2>>(load8(type, source, i, scales));
    });
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
    round_rows<xsimd::fma3<xsimd::avx2>>(type, rotated, x, rows, columns, y, scale);
}

}  // namespace espalier::avx2
