// Stored number types: half and bfloat conversions, widening on every instruction set, 8-bit rows.
#include <bit>
#include <cfenv>

#include "base/float16.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/dense/panel_pack.h"
#include "tests/kernels/support.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// A half's value from its fields, without the code under test.
double half_value(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double sign = (half & 0x8000) != 0 ? -1 : 1;
    if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
    return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

// Nearest even by rounding to the quantum of the value's binade.
double rounded_to_half(double value) {
    if (!std::isfinite(value) || value == 0) return value;
    const int exponent = std::max(std::ilogb(value), -14) - 10;
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -exponent)), exponent);
    return std::fabs(rounded) > 65504 ? std::copysign(INFINITY, value) : rounded;
}

void check_half_of(float value) {
    const uint16_t half = half_from_float(value);
    if (std::isnan(value)) {
        REQUIRE(std::isnan(half_value(half)));
        return;
    }
    REQUIRE(half_value(half) == rounded_to_half(value));
    REQUIRE(((half & 0x8000) != 0) == std::signbit(value));
#if defined(__aarch64__)
    REQUIRE(std::bit_cast<uint16_t>(static_cast<__fp16>(value)) == half);
#elif defined(__FLT16_MAX__)
    REQUIRE(std::bit_cast<uint16_t>(static_cast<_Float16>(value)) == half);
#endif
}

double bfloat_value(uint16_t bfloat) {
    return std::bit_cast<float>(static_cast<uint32_t>(bfloat) << 16);
}

}  // namespace

TEST_CASE("every half widens exactly and comes back") {
    for (uint32_t i = 0; i < 65536; ++i) {
        const auto half = static_cast<uint16_t>(i);
        const float value = float_from_half(half);
        if (std::isnan(half_value(half))) {
            REQUIRE(std::isnan(value));
            REQUIRE(std::isnan(half_value(half_from_float(value))));
            continue;
        }
        REQUIRE(static_cast<double>(value) == half_value(half));
        REQUIRE(half_from_float(value) == half);  // -0 included
    }
}

TEST_CASE("half_from_float rounds to nearest even: every boundary and its neighbours, and random floats") {
    for (uint32_t i = 0; i < 0x7c00; ++i) {
        // Between two neighbouring halves; float32 holds the midpoint exactly.
        const double next = i + 1 == 0x7c00 ? 65536 : half_value(static_cast<uint16_t>(i + 1));
        const auto middle = static_cast<float>((half_value(static_cast<uint16_t>(i)) + next) / 2);
        for (const float sign : {1.0F, -1.0F}) {
            check_half_of(sign * middle);
            check_half_of(sign * std::nextafter(middle, 0.0F));
            check_half_of(sign * std::nextafter(middle, 1e30F));
        }
    }
    Random random(61);
    for (int i = 0; i < 500000; ++i)
        check_half_of(std::bit_cast<float>(static_cast<uint32_t>(random.next())));
    for (const float value : {0.0F, 1e-45F, 3.4e38F, INFINITY, 65504.0F, 65519.996F, 65520.0F, NAN}) {
        check_half_of(value);
        check_half_of(-value);
    }
}

TEST_CASE("every bfloat widens exactly and comes back; rounding is to nearest even") {
    for (uint32_t i = 0; i < 65536; ++i) {
        const auto bfloat = static_cast<uint16_t>(i);
        const float value = float_from_bfloat(bfloat);
        if (std::isnan(value)) {
            REQUIRE(std::isnan(bfloat_value(bfloat_from_float(value))));
            continue;
        }
        REQUIRE(bfloat_from_float(value) == bfloat);
        if (std::isinf(value)) continue;
        // Halfway to the next bfloat in magnitude: to the even one. A step beside it: to the nearer one.
        const uint32_t bits = std::bit_cast<uint32_t>(value);
        REQUIRE(bfloat_from_float(std::bit_cast<float>(bits + 0x8000)) == bfloat + (bfloat & 1));
        REQUIRE(bfloat_from_float(std::bit_cast<float>(bits + 0x7fff)) == bfloat);
        REQUIRE(bfloat_from_float(std::bit_cast<float>(bits + 0x8001)) == bfloat + 1);
    }
    // A NaN whose payload lies in the lower half must not turn into infinity.
    CHECK(std::isnan(bfloat_value(bfloat_from_float(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("widening is exact and alike on every instruction set, at every count") {
    Buffer<uint16_t> all(65536);
    for (uint32_t i = 0; i < 65536; ++i)
        all[i] = static_cast<uint16_t>(i);
    for (const Isa isa : available_isas()) {
        CAPTURE(named(isa));
        const WidenKernel widen = kernel_table(isa).widen;
        Buffer<float> target(65536);
        widen(TensorType::f16, all.data(), 1, target.data(), 65536);
        for (uint32_t i = 0; i < 65536; ++i) {
            const float expected = float_from_half(static_cast<uint16_t>(i));
            REQUIRE((target[i] == expected || (std::isnan(target[i]) && std::isnan(expected))));
            // 32-bit NEON knows one NaN, which has no sign.
            if (!std::isnan(expected)) REQUIRE(std::signbit(target[i]) == std::signbit(expected));
        }
        widen(TensorType::bf16, all.data(), 1, target.data(), 65536);
        for (uint32_t i = 0; i < 65536; ++i)
            REQUIRE(std::bit_cast<uint32_t>(target[i]) == i << 16);
        CHECK(target.intact());
        for (size_t count = 0; count <= 70; ++count) {
            Buffer<uint16_t> halves(count);
            Buffer<int8_t> bytes(count);
            Buffer<float> floats(count), out(count);
            for (size_t i = 0; i < count; ++i) {
                halves[i] = static_cast<uint16_t>(0x3000 + 37 * i);
                bytes[i] = static_cast<int8_t>(5 * static_cast<int>(i) - 128);
                floats[i] = static_cast<float>(i) - 3.5F;
            }
            widen(TensorType::f16, halves.data(), 7, out.data(), count);
            for (size_t i = 0; i < count; ++i)
                REQUIRE(out[i] == float_from_half(halves[i]));
            widen(TensorType::bf16, halves.data(), 7, out.data(), count);
            for (size_t i = 0; i < count; ++i)
                REQUIRE(out[i] == float_from_bfloat(halves[i]));
            widen(TensorType::s8, bytes.data(), 0.37F, out.data(), count);
            for (size_t i = 0; i < count; ++i)
                REQUIRE(out[i] == 0.37F * static_cast<float>(bytes[i]));
            widen(TensorType::f32, floats.data(), 7, out.data(), count);
            CHECK(same_bits(out.data(), floats.data(), count));
            const WidenKernel add = kernel_table(isa).add_widened;
            const auto adds = [&](TensorType type, const void* source, const auto& number) {
                std::copy(floats.begin(), floats.end(), out.begin());
                add(type, source, 0.37F, out.data(), count);
                for (size_t i = 0; i < count; ++i)
                    REQUIRE(out[i] == floats[i] + number(i));
            };
            adds(TensorType::f16, halves.data(), [&](size_t i) { return float_from_half(halves[i]); });
            adds(TensorType::bf16, halves.data(), [&](size_t i) { return float_from_bfloat(halves[i]); });
            // Not fused: the number is rounded before it is added.
            adds(TensorType::s8, bytes.data(), [&](size_t i) {
                const volatile float value = 0.37F * static_cast<float>(bytes[i]);
                return static_cast<float>(value);
            });
            adds(TensorType::f32, floats.data(), [&](size_t i) { return floats[i]; });
            CHECK((out.intact() && halves.intact() && bytes.intact() && floats.intact()));
        }
    }
}

TEST_CASE("8-bit rows: scale absmax / 127, nearest even, within half a step") {
    Random random(62);
    for (int i = 0; i < 2000; ++i) {
        const size_t count = random.between(1, 130);
        Buffer<float> row(count);
        fill_normal(row, random, std::ldexp(1.0F, static_cast<int>(random.between(0, 60)) - 30));
        float largest = 0;
        for (const float value : row)
            largest = std::max(largest, std::fabs(value));
        const float scale = row_scale(row.data(), count);
        REQUIRE(scale == largest / 127.0F);
        Buffer<int8_t> stored(count);
        quantize_row(row.data(), scale, stored.data(), count);
        CHECK(stored.intact());
        for (size_t c = 0; c < count; ++c) {
            REQUIRE(std::abs(int{stored[c]}) <= 127);
            REQUIRE(std::fabs(static_cast<double>(stored[c]) * scale - row[c]) <= 0.5001 * scale);
            if (std::fabs(row[c]) == largest) REQUIRE(std::abs(int{stored[c]}) == 127);
        }
    }
    const float ties[] = {127, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F, 126.5F};
    const int8_t even[] = {127, 0, 2, 2, 0, -2, -2, 126};
    int8_t stored[8];
    quantize_row(ties, 1, stored, 8);
    CHECK(std::memcmp(stored, even, 8) == 0);
}

TEST_CASE("8-bit rows of zeros, of one value, and of numbers too small for a scale of their own") {
    int8_t stored[4];
    const float zeros[4] = {0, -0.0F, 0, 0};
    CHECK(row_scale(zeros, 4) == 0);
    quantize_row(zeros, 0, stored, 4);
    for (const int8_t value : stored)
        CHECK(value == 0);
    CHECK(row_scale(zeros, 0) == 0);
    // Subnormal scales are coarse: 190 steps of the least float over a scale of one step is no int8.
    for (const float steps : {1.0F, 63.0F, 64.0F, 100.0F, 127.0F, 150.0F, 190.0F, 191.0F, 300.0F}) {
        const float tiny[2] = {steps * 1e-45F, -steps * 1e-45F};
        const float scale = row_scale(tiny, 2);
        quantize_row(tiny, scale, stored, 2);
        CAPTURE(steps);
        CHECK(stored[0] >= 0);
        CHECK(stored[1] <= 0);
        CHECK(int{stored[0]} == -int{stored[1]});
    }
    const float largest[2] = {3.4e38F, -3.4e38F};
    quantize_row(largest, row_scale(largest, 2), stored, 2);
    CHECK(int{stored[0]} == 127);
    CHECK(int{stored[1]} == -127);
}

// Found by the fuzzer: a cast of NaN to an integer, of a file whose weights are not finite.
TEST_CASE("8-bit rows with a value that is not finite: no finite scale, and zeros, packed or not") {
    for (const float odd : {INFINITY, -INFINITY, NAN, -NAN}) {
        const float row[4] = {1, odd, -2, 0};
        const float scale = row_scale(row, 4);
        CHECK_FALSE(std::isfinite(scale));
        CHECK_FALSE(std::isfinite(row_scale(row, 2, 1)));
        CHECK(row_scale(row, 2, 2) == 2.0F / 127.0F);
        int8_t stored[4];
        quantize_row(row, scale, stored, 4);
        for (const int8_t value : stored)
            CHECK(value == 0);
        uint32_t words[16];
        pack_panels(TensorType::s8, {row, 1, 4}, 4, 1, 16, &scale, nullptr, words);
        for (const uint32_t word : words)
            CHECK(word == 0x80808080U);
        const float k_scales[4] = {1, scale, 1, 1};
        pack_panels(TensorType::s8, {row, 1, 4}, 4, 1, 16, nullptr, k_scales, words);
        CHECK(words[0] == (0x80808080U ^ 0x00fe0001U));
    }
}
