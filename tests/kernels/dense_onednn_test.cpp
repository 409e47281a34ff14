// oneDNN's dense layers against double precision, and which implementation it picks. The instruction set is
// ESPALIER_ISA's, one a process (tests.cmake runs this file for several).
#include <map>
#include <set>

#include "runtime/model.h"
#include "tests/kernels/dense_support.h"
#include "tests/skip.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// Null where this build or machine has none.
const DenseBackend* onednn() {
    static const auto backend = []() -> std::unique_ptr<DenseBackend> {
        const auto isa = chosen_isa("");
        if (!onednn_compiled_in() || isa == Isa::scalar || isa == Isa::neon) return nullptr;
        return make_onednn_backend(isa);
    }();
    if (!backend) skip("oneDNN serves no instruction set here");
    return backend.get();
}

// oneDNN approximates its activations to about 1e-6 of 1 in absolute terms.
constexpr double activation_slack = 2e-6;

}  // namespace

TEST_CASE("oneDNN: every activation, with and without bias, at every row count") {
    if (onednn() == nullptr) return;
    Budget budget;
    Random random(81);
    for (int form = 0; form < 12; ++form) {
        const DenseShape shape{48, 37, all_activations[form / 2], form % 2 == 1};
        DenseFixture fixture(shape, 1000, random);
        const auto expected = fixture.expected(1000);
        const auto layer = fixture.prepare(*onednn());
        const auto runner = onednn()->make_runner(1);
        for (const size_t rows : many_row_counts()) {
            Buffer<float> y(padded_rows(rows) * shape.outputs);
            runner->run(*layer, fixture.x.data(), y.data(), rows);
            CHECK(y.intact());
            compare(expected, y, rows * shape.outputs, activation_slack, budget);
            CAPTURE(rows);
            CAPTURE(named(shape.activation));
            REQUIRE(budget.worst() <= 1);
        }
    }
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("oneDNN: model shapes, one and two threads") {
    if (onednn() == nullptr) return;
    Budget budget;
    Random random(82);
    for (const auto& [inputs, outputs] : {std::pair<size_t, size_t>{384, 1152},
                                          {384, 384},
                                          {384, 1536},
                                          {1536, 384},
                                          {384, 2},
                                          {1, 1},
                                          {3, 70},
                                          {70, 3}}) {
        const DenseShape shape{inputs, outputs, Activation::gelu_erf, true};
        DenseFixture fixture(shape, 130, random);
        const auto expected = fixture.expected(130);
        const auto layer = fixture.prepare(*onednn());
        for (const int threads : {1, 2}) {
            const auto runner = onednn()->make_runner(threads);
            for (const size_t rows : {1, 2, 7, 16, 17, 33, 65, 100, 130}) {
                Buffer<float> y(padded_rows(rows) * outputs);
                runner->run(*layer, fixture.x.data(), y.data(), rows);
                CHECK(y.intact());
                compare(expected, y, rows * outputs, activation_slack, budget);
                CAPTURE(inputs);
                CAPTURE(outputs);
                CAPTURE(rows);
                REQUIRE(budget.worst() <= 1);
            }
        }
    }
    MESSAGE("largest share of its budget: ", budget.worst());
}

TEST_CASE("oneDNN: no row count falls to another implementation") {
    if (onednn() == nullptr) return;
    Random random(83);
    for (const auto& [inputs, outputs] : {std::pair<size_t, size_t>{384, 1152},
                                          {384, 384},
                                          {384, 1536},
                                          {1536, 384},
                                          {768, 2304},
                                          {768, 3072},
                                          {3072, 768},
                                          {384, 2}}) {
        const DenseShape shape{inputs, outputs, outputs > inputs ? Activation::gelu_erf : Activation::none,
                               true};
        DenseFixture fixture(shape, 1, random);
        const auto layer = fixture.prepare(*onednn());
        const auto runner = onednn()->make_runner(1);
        std::map<std::string, std::set<size_t>> names;
        for (const size_t rows : many_row_counts())
            names[runner->implementation(*layer, rows)].insert(rows);
        for (const auto& [name, rows] : names) {
            MESSAGE(inputs, " -> ", outputs, ": ", name, " for ", rows.size(), " row counts, ", *rows.begin(),
                    " to ", *rows.rbegin());
            CHECK(name.find("ref") == std::string::npos);
            // With AVX2 alone oneDNN 2.6 has nothing better, for any row count.
            if (chosen_isa("") == Isa::avx512) CHECK(name.find("gemm:jit") == std::string::npos);
        }
        CHECK(names.size() == 1);
    }
}
