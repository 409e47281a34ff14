// Our own dense kernels of every instruction set against double precision.
#include "kernels/cpu/kernel_table.h"
#include "kernels/dense/panel_pack.h"
#include "tests/kernels/dense_support.h"

namespace {

using namespace espalier;
using namespace espalier::test;

struct Call {
    Call(const DenseBackend& backend, const DenseFixture& fixture, size_t rows, int threads)
        : y(padded_rows(rows) * fixture.shape.outputs) {
        const auto layer = fixture.prepare(backend);
        backend.make_runner(threads)->run(*layer, fixture.x.data(), y.data(), rows);
        CHECK(y.intact());
    }
    Buffer<float> y;
};

}  // namespace

TEST_CASE("native dense layers: random shapes, every activation, with and without bias") {
    Budget budget;
    Random random(71);
    for (int i = 0; i < 150; ++i) {
        DenseShape shape{random.between(1, 90), random.between(1, 150), all_activations[i % 6],
                         random.coin()};
        const size_t rows = random.between(1, 40);
        DenseFixture fixture(shape, rows, random);
        const auto expected = fixture.expected(rows);
        for (const Isa isa : available_isas()) {
            const auto backend = make_native_backend(isa);
            const Call call(*backend, fixture, rows, 1);
            compare(expected, call.y, rows * shape.outputs, 0, budget);
            CAPTURE(named(isa));
            CAPTURE(shape.inputs);
            CAPTURE(shape.outputs);
            REQUIRE(budget.worst() <= 1);
        }
        CHECK((fixture.x.intact() && fixture.weight.intact() && fixture.bias.intact()));
    }
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("native dense layers: model shapes at every row count; a row's bits do not depend on the count") {
    Budget budget;
    Random random(72);
    for (const auto& [inputs, outputs] : {std::pair<size_t, size_t>{384, 200}, {129, 384}, {384, 2}}) {
        const DenseShape shape{inputs, outputs, Activation::gelu_erf, true};
        DenseFixture fixture(shape, 1000, random);
        const auto expected = fixture.expected(1000);
        for (const Isa isa : available_isas()) {
            const auto backend = make_native_backend(isa);
            const Call whole(*backend, fixture, 1000, 1);
            compare(expected, whole.y, 1000 * outputs, 0, budget);
            REQUIRE(budget.worst() <= 1);
            for (const size_t rows : many_row_counts()) {
                if (isa == Isa::scalar && rows % 9 != 0)
                    continue;  // slow, and a loop over rows by its nature
                const Call part(*backend, fixture, rows, 1);
                REQUIRE(same_bits(part.y.data(), whole.y.data(), rows * outputs));
                const Call threaded(*backend, fixture, rows, 2);
                REQUIRE(same_bits(threaded.y.data(), whole.y.data(), rows * outputs));
            }
        }
    }
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("the kernel writes the panels it is given and no others") {
    Random random(73);
    constexpr size_t inputs = 33, outputs = 200, rows = 7;
    PackedDense packed;
    packed.inputs = inputs;
    packed.outputs = outputs;
    Buffer<float> weight(outputs * inputs), bias(packed.padded_outputs()), x(rows * inputs);
    Buffer<uint32_t> words(packed_words(TensorType::f32, inputs, packed.padded_outputs()));
    fill_normal(weight, random);
    fill_normal(bias, random);
    fill_normal(x, random);
    pack_panels(TensorType::f32, {weight.data(), 1, inputs}, inputs, outputs, packed.padded_outputs(),
                nullptr, nullptr, words.data());
    packed.weight = words.data();
    packed.bias = bias.data();
    for (const Isa isa : available_isas()) {
        Buffer<float> whole(rows * outputs);
        kernel_table(isa).gemm_f32(packed, {x.data(), nullptr, rows, 0, 4, whole.data()});
        for (size_t first = 0; first <= 4; ++first) {
            for (size_t last = first; last <= 4; ++last) {
                Buffer<float> part(rows * outputs);
                std::fill(part.begin(), part.end(), 777.0F);
                kernel_table(isa).gemm_f32(packed, {x.data(), nullptr, rows, first, last, part.data()});
                CHECK(part.intact());
                for (size_t i = 0; i < rows * outputs; ++i) {
                    const size_t panel = i % outputs / panel_columns;
                    REQUIRE(part[i] == (panel >= first && panel < last ? whole[i] : 777.0F));
                }
            }
        }
    }
}

TEST_CASE("padded row counts rise, are enough, and few") {
    size_t before = 0;
    for (size_t rows = 0; rows <= 5000; ++rows) {
        CHECK(padded_rows(rows) >= rows);
        CHECK(padded_rows(rows) >= before);
        CHECK(padded_rows(padded_rows(rows)) == padded_rows(rows));
        if (rows > 0) CHECK(padded_rows(rows) <= rows + rows / 5 + 1);
        before = padded_rows(rows);
    }
}

TEST_CASE("instruction sets by name") {
    for (const Isa isa : available_isas()) {
        CHECK(isa_from_name(name_of(isa)) == isa);
        CHECK(kernel_table(isa).isa == isa);
        CHECK(make_native_backend(isa)->make_runner(1) != nullptr);
    }
    CHECK(available_isas()[0] == Isa::scalar);
    CHECK(best_isa() == available_isas().back());
    CHECK(!isa_from_name("AVX2"));
    CHECK(!isa_from_name(""));
}
