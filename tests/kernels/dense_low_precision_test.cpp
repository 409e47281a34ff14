// Dense layers in bf16 and 8 bits, oneDNN's and our own, against double precision on the same rounded
// numbers: what is left is the rounding of sums, and of outputs where they are narrow.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/float16.h"
#include "kernels/cpu/kernel_table.h"
#include "runtime/model.h"
#include "tests/kernels/dense_support.h"
#include "tests/skip.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// Null where this build or machine has none.
const DenseBackend* low_precision(bool present) {
    static const auto backend = []() -> std::unique_ptr<DenseBackend> {
        if (!onednn_compiled_in() || chosen_isa("") != Isa::avx512) return nullptr;
        return make_onednn_backend(Isa::avx512);
    }();
    if (backend && present) return backend.get();
    skip("no products of this precision here");
    return nullptr;
}

float stored_value(TensorType type, const std::byte* data, size_t i) {
    switch (type) {
        case TensorType::bf16:
            return float_from_bfloat(reinterpret_cast<const uint16_t*>(data)[i]);
        case TensorType::s8:
            return static_cast<float>(reinterpret_cast<const int8_t*>(data)[i]);
        case TensorType::u8:
            return static_cast<float>(reinterpret_cast<const uint8_t*>(data)[i]);
        default:
            return reinterpret_cast<const float*>(data)[i];
    }
}

// One layer on random numbers, compared value by value.
void check(const DenseBackend& backend, const DenseShape& shape, size_t rows, int threads, Random& random) {
    const bool s8 = shape.is_8bit();
    Buffer<float> weight(shape.outputs * shape.inputs), bias(shape.outputs);
    fill_normal(weight, random, 1 / std::sqrt(static_cast<float>(shape.inputs)));
    fill_normal(bias, random);
    const auto layer = backend.prepare(shape, weight.data(), shape.bias ? bias.data() : nullptr,
                                       std::pmr::get_default_resource());
    // The numbers that the layer multiplies by.
    std::vector<double> rounded(weight.size());
    std::vector<int8_t> row(shape.inputs);
    for (size_t o = 0; o < shape.outputs; ++o) {
        const float* source = weight.data() + o * shape.inputs;
        const float scale = row_scale(source, shape.inputs);
        quantize_row(source, scale, row.data(), shape.inputs);
        for (size_t i = 0; i < shape.inputs; ++i)
            rounded[o * shape.inputs + i] =
                s8 ? static_cast<double>(scale) * row[i] : float_from_bfloat(bfloat_from_float(source[i]));
    }
    const size_t x_bytes = bytes_of(shape.input), y_bytes = bytes_of(shape.output);
    Buffer<std::byte> x(padded_rows(rows) * shape.inputs * x_bytes),
        y(padded_rows(rows) * shape.outputs * y_bytes);
    std::vector<float> x_scale(rows, shape.input_quantisation.scale);
    for (size_t r = 0; r < rows && shape.row_scales; ++r)
        x_scale[r] = (0.5F + static_cast<float>(r % 7)) / 127;
    for (size_t i = 0; i < rows * shape.inputs; ++i) {
        Buffer<float> value(1);
        fill_normal(value, random);
        if (shape.input == TensorType::bf16) {
            reinterpret_cast<uint16_t*>(x.data())[i] = bfloat_from_float(value.data()[0]);
        } else {
            const float steps =
                std::nearbyint(value.data()[0] / x_scale[i / shape.inputs] + shape.input_quantisation.zero);
            x.data()[i] =
                shape.input == TensorType::s8
                    ? static_cast<std::byte>(static_cast<int8_t>(std::clamp(steps, -127.0F, 127.0F)))
                    : static_cast<std::byte>(static_cast<uint8_t>(std::clamp(steps, 0.0F, 255.0F)));
        }
    }
    const auto runner = backend.make_runner(threads);
    CAPTURE(runner->implementation(*layer, rows));
    runner->run(*layer, x.data(), shape.row_scales ? x_scale.data() : nullptr, y.data(), rows);
    CHECK(y.intact());
    const Quantisation &in = shape.input_quantisation, &out = shape.output_quantisation;
    // A row alone gives the same bits.
    if (shape.row_scales || backend.name() == std::string_view("native")) {
        Buffer<std::byte> one(padded_rows(1) * shape.outputs * y_bytes);
        for (size_t r = 0; r < rows; ++r) {
            runner->run(*layer, x.data() + r * shape.inputs * x_bytes,
                        shape.row_scales ? &x_scale[r] : nullptr, one.data(), 1);
            REQUIRE(std::memcmp(one.data(), y.data() + r * shape.outputs * y_bytes,
                                shape.outputs * y_bytes) == 0);
        }
    }
    for (size_t r = 0; r < rows; ++r) {
        for (size_t o = 0; o < shape.outputs; ++o) {
            double z = shape.bias ? bias.data()[o] : 0.0, size = std::fabs(z);
            for (size_t i = 0; i < shape.inputs; ++i) {
                const double stored = stored_value(shape.input, x.data(), r * shape.inputs + i);
                const double value = s8 ? x_scale[r] * (stored - static_cast<double>(in.zero)) : stored;
                z += value * rounded[o * shape.inputs + i];
                size += std::fabs(value * rounded[o * shape.inputs + i]);
            }
            const double expected = activated(shape.activation, z);
            const double found = stored_value(shape.output, y.data(), r * shape.outputs + o);
            double budget = 1e-6 * size + 1e-5;
            if (shape.output == TensorType::bf16) budget += std::fabs(expected) / 256;
            if (shape.output == TensorType::s8 || shape.output == TensorType::u8) {
                const double lowest = shape.output == TensorType::s8 ? -128 : 0,
                             highest = shape.output == TensorType::s8 ? 127 : 255;
                const double steps = std::clamp(expected / out.scale + out.zero, lowest, highest);
                REQUIRE(std::fabs(found - steps) <= 0.5 + budget / out.scale + 1e-4);
            } else {
                REQUIRE(std::fabs(found - expected) <= budget);
            }
        }
    }
}

DenseShape shape_of(size_t inputs, size_t outputs, Activation activation, bool bias, TensorType input,
                    TensorType output) {
    DenseShape shape{inputs, outputs, activation, bias, input, output};
    if (shape.is_8bit()) shape.input_quantisation = {3.5F / 127, 0};
    if (input == TensorType::u8) shape.input_quantisation = {7.0F / 255, 100.3F};
    if (output == TensorType::s8) shape.output_quantisation = {4.5F / 127, 0};
    if (output == TensorType::u8) shape.output_quantisation = {4.5F / 255, 0.17F / (4.5F / 255)};
    return shape;
}

}  // namespace

TEST_CASE("oneDNN, bf16: every output type, activation, with and without bias") {
    const auto* backend = low_precision(cpu_has_bf16());
    if (backend == nullptr) return;
    Random random(91);
    for (const TensorType output : {TensorType::f32, TensorType::bf16}) {
        for (const Activation activation : {Activation::none, Activation::gelu_erf, Activation::relu}) {
            for (const bool bias : {false, true}) {
                for (const size_t rows : {1, 7, 33})
                    check(*backend, shape_of(100, 70, activation, bias, TensorType::bf16, output), rows, 1,
                          random);
            }
        }
    }
    check(*backend, shape_of(384, 1536, Activation::gelu_erf, true, TensorType::bf16, TensorType::bf16), 64,
          2, random);
}

TEST_CASE("oneDNN, 8-bit: every pair of types, activation, with and without bias") {
    const auto* backend = low_precision(cpu_has_vnni());
    if (backend == nullptr) return;
    Random random(92);
    for (const TensorType input : {TensorType::s8, TensorType::u8}) {
        for (const TensorType output : {TensorType::f32, TensorType::s8, TensorType::u8}) {
            for (const Activation activation : {Activation::none, Activation::gelu_erf, Activation::relu}) {
                for (const bool bias : {false, true}) {
                    for (const size_t rows : {1, 7, 33})
                        check(*backend, shape_of(100, 70, activation, bias, input, output), rows, 1, random);
                }
            }
        }
    }
    check(*backend, shape_of(384, 1536, Activation::gelu_erf, true, TensorType::s8, TensorType::u8), 64, 2,
          random);
    check(*backend, shape_of(1536, 384, Activation::none, true, TensorType::u8, TensorType::f32), 64, 2,
          random);
}

TEST_CASE("our own, bf16 and 8-bit with a scale a row: every instruction set; oneDNN's backend too") {
    std::vector<std::unique_ptr<DenseBackend>> backends;
    for (const Isa isa : available_isas())
        backends.push_back(make_native_backend(isa));
    if (onednn_compiled_in() && chosen_isa("") == Isa::avx512)
        backends.push_back(make_onednn_backend(Isa::avx512));
    Random random(93);
    for (const auto& backend : backends) {
        CAPTURE(backend->name());
        for (int i = 0; i < 60; ++i) {
            const bool is_8bit = random.coin();
            const auto output = random.coin() ? TensorType::f32 : TensorType::bf16;
            DenseShape shape =
                shape_of(random.between(1, 200), random.between(1, 150), all_activations[i % 6],
                         random.coin(), is_8bit ? TensorType::s8 : TensorType::bf16, output);
            shape.row_scales = is_8bit;
            check(*backend, shape, random.between(1, 70), 1, random);
        }
        for (const size_t rows : {5, 97}) {
            DenseShape shape =
                shape_of(384, 300, Activation::gelu_erf, true, TensorType::s8, TensorType::f32);
            shape.row_scales = true;
            check(*backend, shape, rows, 2, random);
            for (const auto activation : {Activation::none, Activation::gelu_erf}) {
                check(*backend, shape_of(384, 320, activation, true, TensorType::bf16, TensorType::bf16),
                      rows, 2, random);
                shape = shape_of(384, 320, activation, true, TensorType::s8, TensorType::bf16);
                shape.row_scales = true;
                check(*backend, shape, rows, 2, random);
            }
        }
    }
}

TEST_CASE("rows rounded to bf16 and 8 bits: every instruction set alike") {
    Random random(94);
    for (int i = 0; i < 200; ++i) {
        const size_t rows = random.between(1, 5), columns = random.between(1, 130);
        Buffer<float> x(rows * columns);
        fill_normal(x, random, std::pow(10.0F, static_cast<float>(random.between(0, 8)) - 4));
        if (i % 10 == 0) x.data()[0] = NAN;
        if (i % 10 == 1) x.data()[x.size() - 1] = -INFINITY;
        if (i % 10 == 2) std::fill(x.begin(), x.end(), 1e-38F);
        Buffer<int8_t> expected(rows * columns);
        Buffer<uint16_t> expected_bf16(rows * columns);
        std::vector<float> scales(rows);
        kernel_table(Isa::scalar)
            .round(TensorType::s8, false, x.data(), rows, columns, expected.data(), scales.data());
        kernel_table(Isa::scalar)
            .round(TensorType::bf16, false, x.data(), rows, columns, expected_bf16.data(), nullptr);
        for (size_t r = 0; r < rows; ++r) {
            const float* row = x.data() + r * columns;
            const bool finite = std::all_of(row, row + columns, [](float v) { return std::isfinite(v); });
            CHECK(std::isnan(scales[r]) != finite);
            if (!finite) continue;
            const float scale = row_scale(row, columns);
            CHECK(scales[r] == scale);
            for (size_t c = 0; c < columns; ++c)
                CHECK(std::fabs(scale * static_cast<float>(expected.data()[r * columns + c]) - row[c]) <=
                      0.5001F * scale + 1e-35F);
        }
        for (const Isa isa : available_isas()) {
            Buffer<int8_t> found(rows * columns);
            Buffer<uint16_t> found_bf16(rows * columns);
            std::vector<float> found_scales(rows);
            kernel_table(isa).round(TensorType::s8, false, x.data(), rows, columns, found.data(),
                                    found_scales.data());
            kernel_table(isa).round(TensorType::bf16, false, x.data(), rows, columns, found_bf16.data(),
                                    nullptr);
            CHECK((found.intact() && found_bf16.intact()));
            CHECK(std::memcmp(found_scales.data(), scales.data(), rows * sizeof(float)) == 0);
            CHECK(std::memcmp(found.data(), expected.data(), rows * columns) == 0);
            CHECK(std::memcmp(found_bf16.data(), expected_bf16.data(), 2 * rows * columns) == 0);
        }
    }
}

TEST_CASE("a row of zeros is no trouble in 8 bits") {
    const auto* backend = low_precision(cpu_has_vnni());
    if (backend == nullptr) return;
    const DenseShape shape = shape_of(16, 2, Activation::none, true, TensorType::u8, TensorType::f32);
    const std::vector<float> weight(32, 0.0F), bias{1.5F, -2.0F};
    const auto layer = backend->prepare(shape, weight.data(), bias.data(), std::pmr::get_default_resource());
    const std::vector<uint8_t> x(16, 77);
    std::vector<float> y(2);
    backend->make_runner(1, true)->run(*layer, x.data(), y.data(), 1);
    CHECK(y[0] == doctest::Approx(1.5));
    CHECK(y[1] == doctest::Approx(-2.0));
}

TEST_CASE("what a backend lacks is said") {
    const float weight = 1;
    DenseShape shape{1, 1, Activation::none, false, TensorType::s8, TensorType::f32};
    CHECK_THROWS_AS(
        make_native_backend(Isa::scalar)->prepare(shape, &weight, nullptr, std::pmr::get_default_resource()),
        Error);
    const auto* backend = low_precision(true);
    if (backend == nullptr) return;
    shape.input = TensorType::bf16;
    shape.output = TensorType::s8;
    CHECK_THROWS_AS(backend->prepare(shape, &weight, nullptr, std::pmr::get_default_resource()), Error);
    shape.input = TensorType::f16;
    CHECK_THROWS_AS(backend->prepare(shape, &weight, nullptr, std::pmr::get_default_resource()), Error);
}
