#include <immintrin.h>

#include "kernels/cpu/peak-inl.h"
#include "kernels/cpu/peak_x86.h"

namespace espalier::avx2 {

uint64_t peak_f32(uint64_t rounds) {
    const __m256 a = _mm256_set1_ps(0.999F), b = _mm256_set1_ps(0.001F);
    run_chains(rounds, b, [&](__m256 sum) { return _mm256_fmadd_ps(sum, a, b); });
    return rounds * chains * 8;
}

uint64_t peak_read(const void* source, size_t bytes) {
    const auto* p = static_cast<const __m256i*>(source);
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    for (size_t i = 0; i < bytes / 32; i += 4) {
        s0 = _mm256_xor_si256(s0, _mm256_load_si256(p + i));
        s1 = _mm256_xor_si256(s1, _mm256_load_si256(p + i + 1));
        s2 = _mm256_xor_si256(s2, _mm256_load_si256(p + i + 2));
        s3 = _mm256_xor_si256(s3, _mm256_load_si256(p + i + 3));
    }
    s0 = _mm256_xor_si256(_mm256_xor_si256(s0, s1), _mm256_xor_si256(s2, s3));
    alignas(32) uint64_t values[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(values), s0);
    return values[0] ^ values[1] ^ values[2] ^ values[3];
}

}  // namespace espalier::avx2
