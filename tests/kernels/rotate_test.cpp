// The rotation in front of 8-bit rounding against its definition (docs/format.md) as a matrix in double
// precision.
#include "kernels/quantize/rotate.h"

#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/support.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// R[i, j]: products of the signs of Sylvester's matrix, the reflection of blocks, and the identity of 16.
double entry(size_t n, size_t i, size_t j) {
    size_t span = 1;
    while (span < 16 && n % (32 * span) == 0)
        span *= 2;
    if (span == 1 || n > 4096) return i == j ? 1 : 0;
    if (i % 16 != j % 16) return 0;
    const size_t blocks = n / (16 * span), row = i / 16 % span, column = j / 16 % span;
    const double sign = __builtin_parityll(row & column) != 0 ? -1 : 1;
    const double same = i / (16 * span) == j / (16 * span) ? 1 : 0;
    return sign / std::sqrt(static_cast<double>(span)) *
           (blocks > 2 ? same - 2 / static_cast<double>(blocks) : same);
}

std::vector<double> turned(const float* x, size_t n) {
    std::vector<double> y(n);
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j)
            y[i] += entry(n, i, j) * x[j];
    }
    return y;
}

}  // namespace

TEST_CASE("rows of every kind of length: as the matrix has it, and its own inverse") {
    Random random(71);
    for (const size_t n : {1, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024, 1536}) {
        CAPTURE(n);
        Buffer<float> x(n), y(n);
        fill_normal(x, random);
        std::copy(x.begin(), x.end(), y.begin());
        rotate(y.data(), n);
        CHECK(y.intact());
        const auto expected = turned(x.data(), n);
        double before = 0, after = 0;
        for (size_t i = 0; i < n; ++i) {
            REQUIRE(std::fabs(y[i] - expected[i]) < 2e-6);
            before += static_cast<double>(x[i]) * x[i];
            after += static_cast<double>(y[i]) * y[i];
        }
        CHECK(after == doctest::Approx(before).epsilon(1e-6));
        rotate(y.data(), n);
        for (size_t i = 0; i < n; ++i)
            REQUIRE(std::fabs(y[i] - x[i]) < 2e-6);
    }
    CHECK(rotation_span(384) == 8);
    CHECK(rotation_span(8192) == 1);
    CHECK(rotation_span(0) == 1);
}

TEST_CASE("rows of a matrix among themselves, in both precisions") {
    Random random(72);
    constexpr size_t rows = 96, width = 5;
    Buffer<float> x(rows * width);
    fill_normal(x, random);
    std::vector<double> wide(x.begin(), x.end());
    std::vector<float> column(rows);
    std::vector<std::vector<double>> expected;
    for (size_t c = 0; c < width; ++c) {
        for (size_t r = 0; r < rows; ++r)
            column[r] = x[r * width + c];
        expected.push_back(turned(column.data(), rows));
    }
    rotate(x.data(), rows, width);
    rotate(wide.data(), rows, width);
    CHECK(x.intact());
    for (size_t i = 0; i < rows * width; ++i) {
        REQUIRE(std::fabs(x[i] - expected[i % width][i / width]) < 2e-6);
        REQUIRE(std::fabs(wide[i] - expected[i % width][i / width]) < 1e-12);
    }
}

TEST_CASE("rounded after it: every instruction set within half a step; one outlier makes no coarse steps") {
    Random random(73);
    for (const size_t n : {16, 24, 32, 48, 64, 128, 256, 384, 768, 1536, 4096, 8192}) {
        CAPTURE(n);
        Buffer<float> x(3 * n);
        fill_normal(x, random);
        x[n / 2] = 40;
        x[2 * n + 1] = NAN;
        for (const Isa isa : available_isas()) {
            CAPTURE(named(isa));
            Buffer<int8_t> found(3 * n);
            float scale[3], plain[3];
            kernel_table(isa).round(TensorType::s8, false, x.data(), 3, n, found.data(), plain);
            kernel_table(isa).round(TensorType::s8, true, x.data(), 3, n, found.data(), scale);
            CHECK(found.intact());
            for (size_t r = 0; r < 2; ++r) {
                std::vector<float> row(x.begin() + static_cast<ptrdiff_t>(r * n),
                                       x.begin() + static_cast<ptrdiff_t>((r + 1) * n));
                rotate(row.data(), n);
                for (size_t i = 0; i < n; ++i)
                    REQUIRE(std::fabs(static_cast<double>(scale[r]) * found[r * n + i] - row[i]) <=
                            0.5001 * scale[r] + 1e-5);
            }
            CHECK(std::isnan(scale[2]));
            if (rotation_span(n) == 8) CHECK(scale[0] < 0.7F * plain[0]);
            if (rotation_span(n) == 1) CHECK(scale[0] == plain[0]);
        }
    }
}
