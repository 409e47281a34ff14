// Compiled with BF16 and VNNI as well: peak.cpp asks the processor before it calls those two.
#include <immintrin.h>

#include "kernels/cpu/peak-inl.h"
#include "kernels/cpu/peak_x86.h"

namespace espalier::avx512 {

uint64_t peak_f32(uint64_t rounds) {
    const __m512 a = _mm512_set1_ps(0.999F), b = _mm512_set1_ps(0.001F);
    run_chains(rounds, b, [&](__m512 sum) { return _mm512_fmadd_ps(sum, a, b); });
    return rounds * chains * 16;
}

uint64_t peak_bf16(uint64_t rounds) {
    const __m512 tiny = _mm512_set1_ps(0.001F);
    const __m512bh a = _mm512_cvtne2ps_pbh(tiny, tiny);
    run_chains(rounds, tiny, [&](__m512 sum) { return _mm512_dpbf16_ps(sum, a, a); });
    return rounds * chains * 32;
}

uint64_t peak_s8(uint64_t rounds) {
    const __m512i a = _mm512_set1_epi8(1);
    run_chains(rounds, a, [&](__m512i sum) { return _mm512_dpbusd_epi32(sum, a, a); });
    return rounds * chains * 64;
}

uint64_t peak_read(const void* source, size_t bytes) {
    const auto* p = static_cast<const char*>(source);
    __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
    for (size_t i = 0; i < bytes; i += 256) {
        s0 = _mm512_xor_si512(s0, _mm512_load_si512(p + i));
        s1 = _mm512_xor_si512(s1, _mm512_load_si512(p + i + 64));
        s2 = _mm512_xor_si512(s2, _mm512_load_si512(p + i + 128));
        s3 = _mm512_xor_si512(s3, _mm512_load_si512(p + i + 192));
    }
    s0 = _mm512_xor_si512(_mm512_xor_si512(s0, s1), _mm512_xor_si512(s2, s3));
    alignas(64) uint64_t values[8];
    _mm512_store_si512(values, s0);
    uint64_t all = 0;
    for (const uint64_t value : values)
        all ^= value;
    return all;
}

}  // namespace espalier::avx512
