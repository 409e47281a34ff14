// The dense product over packed panels; specification: gemm_scalar.cpp.
#pragma once

#include "kernels/activation/activation-inl.h"
#include "kernels/dense/gemm.h"
#include "kernels/dense/panel-inl.h"
#include "kernels/quantize/round-inl.h"

namespace espalier {
namespace {

// Rows that go through the panels together: a multiple of every tile's height. A panel of 64 columns and 1536
// 8-bit inputs is 96 KiB; each is read from the second-level cache once for so many rows.
inline constexpr size_t gemm_rows = 48;

// A block's rows meet one panel; sums go to `y`, float32, where the activation follows, or rounded to
// `narrow`.
template <class Arch, TensorType type>
struct GemmRows {
    using V = Floats<Arch>;
    using Sum = typename PanelOps<Arch, type>::Sum;
    using Register = typename PanelOps<Arch, type>::Register;

    const std::byte* x;
    size_t x_bytes;        // of a row
    size_t fetched_bytes;  // of each of the next rows, while the first panel passes
    const int32_t* x_sum;  // s8 alone reads it, and both scales
    const float *x_scale, *scale;
    const float* bias;
    float* y;
    uint16_t* narrow;  // bfloat16, in place of y; or null
    size_t stride;

    [[gnu::always_inline]] const std::byte* a(size_t r) const { return x + r * x_bytes; }
    [[gnu::always_inline]] const std::byte* next(size_t r, size_t) const { return a(r); }
    [[gnu::always_inline]] size_t next_bytes(size_t) const { return fetched_bytes; }

    template <size_t height, size_t width>
    [[gnu::always_inline]] void start(size_t row, size_t c, Register (&sum)[height][width]) const {
        start_sums<Arch, type>(
            bias + c, [&](size_t r) __attribute__((always_inline)) { return x_sum[row + r]; }, sum);
    }
    template <size_t height, size_t width>
    [[gnu::always_inline]] void finish(size_t row, size_t c, const Register (&sum)[height][width]) const {
        if (narrow != nullptr) {
            each(
                row, c, sum, [&](size_t place, V value) __attribute__((always_inline)) {
                    store_bfloats<Arch>(value, narrow + place);
                });
        } else {
            each(
                row, c, sum, [&](size_t place, V value) __attribute__((always_inline)) {
                    value.store_unaligned(y + place);
                });
        }
    }

   private:
    template <size_t height, size_t width, class Store>
    [[gnu::always_inline]] void each(size_t row, size_t c, const Register (&sum)[height][width],
                                     const Store& store) const {
#pragma GCC unroll 8
        for (size_t v = 0; v < width; ++v) {
            const size_t at = c + v * lanes<Arch>;
            if constexpr (type == TensorType::s8) {
                const V scales = V::load_unaligned(scale + at), begin = V::load_unaligned(bias + at);
#pragma GCC unroll 8
                for (size_t r = 0; r < height; ++r)
                    store((row + r) * stride + at,
                          xsimd::fma(xsimd::to_float(Sum(sum[r][v])), V(x_scale[row + r]) * scales, begin));
            } else {
#pragma GCC unroll 8
                for (size_t r = 0; r < height; ++r)
                    store((row + r) * stride + at, V(sum[r][v]));
            }
        }
    }
};

template <class Arch, TensorType type>
class GemmBlock {
   public:
    GemmBlock(const PackedDense& d, const GemmCall& call) : d_(d), call_(call) {}

    void run() {
        for (size_t first = 0; first < call_.rows; first += gemm_rows) {
            const size_t count = call_.rows - first < gemm_rows ? call_.rows - first : gemm_rows;
            begin(first, count);
            for (size_t p = call_.first_panel; p < call_.last_panel; ++p)
                panel(p, first, count);
        }
    }

   private:
    static constexpr size_t group = panel_group(type);

    const std::byte* x(size_t row) const {
        return static_cast<const std::byte*>(call_.x) + row * d_.inputs * bytes_of(type);
    }

    // What all panels need of the block's rows: 8-bit sums, and last words that the inputs do not fill (a
    // whole load would read the next row).
    void begin(size_t first, size_t count) {
        const size_t rest = d_.inputs % group;
        for (size_t r = 0; r < count; ++r) {
            if constexpr (type == TensorType::s8)
                x_sum_[r] = sum_of_bytes<Arch>(reinterpret_cast<const int8_t*>(x(first + r)), d_.inputs);
            x_tail_[r] = 0;
            __builtin_memcpy(&x_tail_[r], x(first + r + 1) - rest * bytes_of(type), rest * bytes_of(type));
        }
    }

    // One row by itself, a decoder's, reads the weights once and waits for memory: AVX2's tiles of 16 columns
    // would go four times through a panel, a cache line of every fourth each time.
    static void multiply(const PanelJob& job, size_t count, const GemmRows<Arch, type>& rows) {
        using Ops = PanelOps<Arch, type>;
        if constexpr (Ops::Sum::size == 8) {
            constexpr size_t whole = panel_columns / Ops::Sum::size;
            if (count == 1 && job.columns == panel_columns)
                return panel_tile<Ops, 1, whole>(job, job.ahead, 0, 0, rows);
        }
        multiply_panel<Ops>(job, count, rows);
    }

    void panel(size_t p, size_t first, size_t count) {
        const size_t start = p * panel_columns, groups = panel_groups(type, d_.inputs);
        const size_t left = d_.padded_outputs() - start;
        PanelJob job;
        job.columns = left < panel_columns ? left : panel_columns;
        job.sources = 1;
        job.source[0] = {d_.weight + start * groups, d_.inputs / group, 0};
        job.a_tail = d_.inputs % group > 0 ? x_tail_ : nullptr;
        if (p + 1 < call_.last_panel) {
            job.ahead = reinterpret_cast<const std::byte*>(d_.weight + (start + panel_columns) * groups);
            const size_t next = left - job.columns;
            job.ahead_lines = (next < panel_columns ? next : panel_columns) * groups / 16 /
                              panel_tiles<PanelOps<Arch, type>>(count);
        }
        GemmRows<Arch, type> rows{};
        rows.x = x(first);
        rows.x_bytes = d_.inputs * bytes_of(type);
        rows.fetched_bytes = p == call_.first_panel ? rows.x_bytes : 0;
        rows.x_sum = x_sum_;
        rows.x_scale = type == TensorType::s8 ? call_.x_scale + first : nullptr;
        rows.scale = type == TensorType::s8 ? d_.scale + start : nullptr;
        rows.bias = d_.bias + start;
        // Straight into y where that needs no activation and has room for whole vectors.
        const size_t valid = d_.outputs - start < job.columns ? d_.outputs - start : job.columns;
        if (valid == job.columns && d_.activation == Activation::none) {
            const size_t at = first * d_.outputs + start;
            if (d_.output == TensorType::bf16) {
                rows.narrow = static_cast<uint16_t*>(call_.y) + at;
            } else {
                rows.y = static_cast<float*>(call_.y) + at;
            }
            rows.stride = d_.outputs;
            return multiply(job, count, rows);
        }
        rows.y = strip_;
        rows.stride = job.columns;
        multiply(job, count, rows);
        activate_values<Arch>(d_.activation, strip_, count * job.columns);
        for (size_t r = 0; r < count; ++r)
            store(strip_ + r * job.columns, valid, (first + r) * d_.outputs + start);
    }

    void store(const float* values, size_t count, size_t at) const {
        if (d_.output == TensorType::bf16) {
            round_to_bfloat<Arch>(values, count, static_cast<uint16_t*>(call_.y) + at);
        } else {
            __builtin_memcpy(static_cast<float*>(call_.y) + at, values, count * sizeof(float));
        }
    }

    const PackedDense& d_;
    const GemmCall& call_;
    int32_t x_sum_[gemm_rows];
    uint32_t x_tail_[gemm_rows];
    alignas(64) float strip_[gemm_rows * panel_columns];
};

template <class Arch, TensorType type>
inline void gemm_panels(const PackedDense& dense, const GemmCall& call) {
    GemmBlock<Arch, type>(dense, call).run();
}

}  // namespace
}  // namespace espalier
