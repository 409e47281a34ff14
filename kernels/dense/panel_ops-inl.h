// How a word of A meets a vector of packed B (panel.h), for rows of every type: PanelOps<Arch, type>, by the
// best that the flags of the including file allow. Intrinsics where xsimd 8.1 lacks the operation. NEON's are
// in panel_neon-inl.h.
#pragma once

#include <bit>

#include "kernels/cpu/simd-inl.h"
#include "kernels/dense/panel.h"

namespace espalier {
namespace {

// Rows and vectors of a tile: 24 of 32 registers are sums (6 x 4), or 12 of 16 (6 x 2); fewer rows where
// words of A must be split in two before they are multiplied.
template <class Arch>
inline constexpr bool many_registers = true;
#if defined(__AVX2__)
template <>
inline constexpr bool many_registers<xsimd::fma3<xsimd::avx2>> = false;
#endif

[[gnu::always_inline]] inline uint32_t load_word(const std::byte* place) {
    uint32_t word;
    __builtin_memcpy(&word, place, sizeof(word));
    return word;
}

// Two words.
[[gnu::always_inline]] inline uint64_t load_words(const std::byte* place) {
    uint64_t words;
    __builtin_memcpy(&words, place, sizeof(words));
    return words;
}

template <class Arch, TensorType type>
struct PanelOps;

template <class Arch>
struct PanelOps<Arch, TensorType::f32> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = many_registers<Arch> ? 4 : 2;

    // sum += A's word of every row times the vectors at b.
    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        Sum column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = Sum::load_unaligned(reinterpret_cast<const float*>(b) + v * lanes<Arch>);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const Sum value(std::bit_cast<float>(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = xsimd::fma(value, column[v], sum[r][v]);
        }
    }
};

#if !defined(__ARM_NEON)
#if defined(__AVX512BF16__)
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = 4;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        __m512i column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = _mm512_loadu_si512(b + v * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = add_pair_products(sum[r][v], value, column[v]);
        }
    }
};
#else
// Both halves of a word widened to float32: two fused multiply-adds a word.
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    using Words = xsimd::batch<uint32_t, Arch>;
    static constexpr size_t rows = 4, vectors = many_registers<Arch> ? 4 : 2;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        Sum low[height], high[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            low[r] = Sum(std::bit_cast<float>(word(r) << 16));
            high[r] = Sum(std::bit_cast<float>(word(r) & 0xffff0000u));
        }
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const Words pair = Words::load_unaligned(b + v * lanes<Arch>);
            const Sum first = same_bits<Sum>(pair << 16);
            const Sum second = same_bits<Sum>(pair & Words(0xffff0000u));
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] = xsimd::fma(high[r], second, xsimd::fma(low[r], first, sum[r][v]));
        }
    }
};
#endif

// 8-bit: B's values stand 128 too high, so that sums hold `b_offset` = 128 times (sum of A's row) too much,
// which start_sums takes off; 0 where step has taken the 128 off itself. Sums are exact for k up to 2^31 /
// (255 * 127) = 66,311.
#if defined(__AVX512VNNI__)
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = __m512i;
    static constexpr size_t rows = 6, vectors = 4;
    static constexpr int32_t b_offset = 128;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Register (&sum)[height][width], const uint32_t* b,
                                            const Word& word) {
        __m512i column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = _mm512_loadu_si512(b + v * 16);
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = add_quad_products(sum[r][v], column[v], value);
        }
    }
};
#else
// A word's even and odd bytes as 16-bit numbers: two vpmaddwd, which cannot overflow.
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = Sum;
    using Shorts = xsimd::batch<int16_t, Arch>;
    static constexpr size_t rows = 4, vectors = many_registers<Arch> ? 4 : 2;
    static constexpr int32_t b_offset = 128;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        Sum even[height], odd[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const Shorts value = same_bits<Shorts>(Sum(static_cast<int32_t>(word(r))));
            even[r] = same_bits<Sum>((value << 8) >> 8);
            odd[r] = same_bits<Sum>(value >> 8);
        }
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            using Words = xsimd::batch<uint32_t, Arch>;
            using Unsigned = xsimd::batch<uint16_t, Arch>;
            const Words quads = Words::load_unaligned(b + v * lanes<Arch>);
            const Sum first = same_bits<Sum>(quads & Words(0x00ff00ffu));
            const Sum second = same_bits<Sum>(same_bits<Unsigned>(quads) >> 8);
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] =
                    sum[r][v] + (sums_of_pairs<Arch>(first, even[r]) + sums_of_pairs<Arch>(second, odd[r]));
        }
    }
};
#endif
#endif  // no NEON

}  // namespace
}  // namespace espalier
