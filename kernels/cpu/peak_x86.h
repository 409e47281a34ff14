// The kernels that peak.cpp chooses among.
#pragma once

#include <cstddef>
#include <cstdint>

namespace espalier::avx2 {
uint64_t peak_f32(uint64_t rounds);
uint64_t peak_read(const void* source, size_t bytes);
}  // namespace espalier::avx2

namespace espalier::avx512 {
uint64_t peak_f32(uint64_t rounds);
uint64_t peak_bf16(uint64_t rounds);  // needs AVX512_BF16
uint64_t peak_s8(uint64_t rounds);    // needs AVX512_VNNI
uint64_t peak_read(const void* source, size_t bytes);
}  // namespace espalier::avx512
