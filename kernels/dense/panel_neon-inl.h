// PanelOps of NEON: what every processor has, and products of pairs, quads and small matrices where the flags
// of the including file allow them (DotProd; I8MM with DotProd; BF16). Matrices take tiles of three rows and
// more: for one or two, sorting B's columns into pairs takes longer than half as many products save. Both
// kinds give the same bits: those of bytes are exact, and bfmmla is defined as two bfdot, one after the
// other.
#pragma once

#include "kernels/dense/panel_ops-inl.h"

namespace espalier {
namespace {

#if defined(__ARM_FEATURE_MATMUL_INT8) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
// The sums of a tile as products of 2 x 2 leave them: [pair of rows][pair of columns], of four values: the
// first row's two columns, the second's. A last row without a partner is multiplied twice. Product::add(sum,
// a, b): a holds two words of two rows, b two words of two columns.
template <class Register, class Product, size_t height, size_t width>
class PairSums {
   public:
    [[gnu::always_inline]] explicit PairSums(const Register (&rows)[height][width]) {
#pragma GCC unroll 8
        for (size_t p = 0; p < pairs; ++p) {
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v) {
                const uint64x2_t first = Product::bits(rows[2 * p][v]),
                                 second = Product::bits(rows[partner(p)][v]);
                sum_[p][2 * v] = Product::sums(vcombine_u64(vget_low_u64(first), vget_low_u64(second)));
                sum_[p][2 * v + 1] = Product::sums(vcombine_u64(vget_high_u64(first), vget_high_u64(second)));
            }
        }
    }
    [[gnu::always_inline]] void rows(Register (&rows)[height][width]) const {
#pragma GCC unroll 8
        for (size_t p = 0; p < pairs; ++p) {
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v) {
                const uint64x2_t left = Product::bits(sum_[p][2 * v]),
                                 right = Product::bits(sum_[p][2 * v + 1]);
                rows[2 * p][v] =
                    Register(Product::sums(vcombine_u64(vget_low_u64(left), vget_low_u64(right))));
                if (2 * p + 1 < height)
                    rows[partner(p)][v] =
                        Register(Product::sums(vcombine_u64(vget_high_u64(left), vget_high_u64(right))));
            }
        }
    }
    // words(r): two words of row r. b0, b1: the vectors that they meet.
    template <class Words>
    [[gnu::always_inline]] void step(const uint32_t* b0, const uint32_t* b1, const Words& words) {
        add(
            words, [&](size_t v) __attribute__((always_inline)) { return vld1q_u32(b0 + v * 4); },
            [&](size_t v) __attribute__((always_inline)) { return vld1q_u32(b1 + v * 4); });
    }
    // Where there is one word left: zeros meet zeros.
    template <class Words>
    [[gnu::always_inline]] void last_step(const uint32_t* b0, const Words& words) {
        add(
            words, [&](size_t v) __attribute__((always_inline)) { return vld1q_u32(b0 + v * 4); },
            [](size_t) __attribute__((always_inline)) { return vdupq_n_u32(0); });
    }

   private:
    static constexpr size_t pairs = (height + 1) / 2;
    static constexpr size_t partner(size_t p) {
        return 2 * p + 1 < height ? 2 * p + 1 : 2 * p;
    }

    template <class Words, class First, class Second>
    [[gnu::always_inline]] void add(const Words& words, const First& first, const Second& second) {
        uint64x2_t a[pairs];
#pragma GCC unroll 8
        for (size_t p = 0; p < pairs; ++p)
            a[p] = vcombine_u64(vcreate_u64(words(2 * p)), vcreate_u64(words(partner(p))));
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const uint32x4_t b0 = first(v), b1 = second(v);
            const uint32x4_t left = vzip1q_u32(b0, b1), right = vzip2q_u32(b0, b1);
#pragma GCC unroll 8
            for (size_t p = 0; p < pairs; ++p) {
                sum_[p][2 * v] = Product::add(sum_[p][2 * v], a[p], left);
                sum_[p][2 * v + 1] = Product::add(sum_[p][2 * v + 1], a[p], right);
            }
        }
    }

    typename Product::Sums sum_[pairs][2 * width];
};
#endif

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = 4, least_rows_of_pairs = 3;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const bfloat16x8_t column = vreinterpretq_bf16_u32(vld1q_u32(b + v * 4));
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] = Sum(vbfdotq_f32(sum[r][v], vreinterpretq_bf16_u32(vdupq_n_u32(word(r))), column));
        }
    }

    struct Product {
        using Sums = float32x4_t;
        [[gnu::always_inline]] static Sums sums(uint64x2_t bits) { return vreinterpretq_f32_u64(bits); }
        [[gnu::always_inline]] static uint64x2_t bits(float32x4_t sums) {
            return vreinterpretq_u64_f32(sums);
        }
        [[gnu::always_inline]] static Sums add(Sums sum, uint64x2_t a, uint32x4_t b) {
            return vbfmmlaq_f32(sum, vreinterpretq_bf16_u64(a), vreinterpretq_bf16_u32(b));
        }
    };
    template <size_t height, size_t width>
    using Pairs = PairSums<Register, Product, height, width>;
};
#else
// Both halves of a word widened to float32: two fused multiply-adds a word. GCC 12 calls xsimd's shifts and
// casts as functions, in the middle of the loop.
template <class Arch>
struct PanelOps<Arch, TensorType::bf16> {
    using Sum = Floats<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 4, vectors = 4;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        float32x4_t low[height], high[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            low[r] = vdupq_n_f32(std::bit_cast<float>(word(r) << 16));
            high[r] = vdupq_n_f32(std::bit_cast<float>(word(r) & 0xffff0000u));
        }
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const uint32x4_t pair = vld1q_u32(b + v * 4);
            const float32x4_t first = vreinterpretq_f32_u32(vshlq_n_u32(pair, 16));
            const float32x4_t second = vreinterpretq_f32_u32(vandq_u32(pair, vdupq_n_u32(0xffff0000u)));
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r)
                sum[r][v] = Sum(vfmaq_f32(vfmaq_f32(sum[r][v], first, low[r]), second, high[r]));
        }
    }
};
#endif

#if defined(__ARM_FEATURE_DOTPROD)
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 6, vectors = 4;
    static constexpr int32_t b_offset = 0;

    // sdot multiplies signed by signed: B's top bits are turned back, once for all rows of the tile.
    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        int8x16_t column[width];
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v)
            column[v] = vreinterpretq_s8_u32(veorq_u32(vld1q_u32(b + v * 4), vdupq_n_u32(0x80808080u)));
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r) {
            const int8x16_t value = vreinterpretq_s8_u32(vdupq_n_u32(word(r)));
#pragma GCC unroll 8
            for (size_t v = 0; v < width; ++v)
                sum[r][v] = Sum(vdotq_s32(sum[r][v], column[v], value));
        }
    }

#if defined(__ARM_FEATURE_MATMUL_INT8)
    static constexpr size_t least_rows_of_pairs = 3;
    // As sdot does, smmla multiplies signed by signed.
    struct Product {
        using Sums = int32x4_t;
        [[gnu::always_inline]] static Sums sums(uint64x2_t bits) { return vreinterpretq_s32_u64(bits); }
        [[gnu::always_inline]] static uint64x2_t bits(int32x4_t sums) { return vreinterpretq_u64_s32(sums); }
        [[gnu::always_inline]] static Sums add(Sums sum, uint64x2_t a, uint32x4_t b) {
            const uint32x4_t turned = veorq_u32(b, vdupq_n_u32(0x80808080u));
            return vmmlaq_s32(sum, vreinterpretq_s8_u64(a), vreinterpretq_s8_u32(turned));
        }
    };
    template <size_t height, size_t width>
    using Pairs = PairSums<Register, Product, height, width>;
#endif
};
#else
template <class Arch>
struct PanelOps<Arch, TensorType::s8> {
    using Sum = Integers<Arch>;
    using Register = Sum;
    static constexpr size_t rows = 4, vectors = 4;
    static constexpr int32_t b_offset = 128;

    template <size_t height, size_t width, class Word>
    [[gnu::always_inline]] static void step(Sum (&sum)[height][width], const uint32_t* b, const Word& word) {
        int16x8_t value[height];
#pragma GCC unroll 8
        for (size_t r = 0; r < height; ++r)
            value[r] = vmovl_s8(vcreate_s8(word(r) | static_cast<uint64_t>(word(r)) << 32));
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const uint8x16_t quads = vreinterpretq_u8_u32(vld1q_u32(b + v * 4));
            const int16x8_t first = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(quads)));
            const int16x8_t second = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(quads)));
            // A product is at most 255 * 128 in size: it fits 16 bits.
#pragma GCC unroll 8
            for (size_t r = 0; r < height; ++r) {
                const int32x4_t pairs0 = vpaddlq_s16(vmulq_s16(first, value[r]));
                const int32x4_t pairs1 = vpaddlq_s16(vmulq_s16(second, value[r]));
                sum[r][v] = sum[r][v] + Sum(sums_of_neighbours(pairs0, pairs1));
            }
        }
    }
};
#endif

}  // namespace
}  // namespace espalier
