// Queries against a cache: every instruction set against double precision.
#include "kernels/attention/attention.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/reference.h"

namespace {

using namespace espalier;
using namespace espalier::test;

std::vector<double> expected(const CachedHead& seen, const float* query, float scale) {
    std::vector<double> scores(seen.length), out(seen.dimension);
    double sum = 0;
    for (size_t j = 0; j < seen.length; ++j) {
        for (size_t c = 0; c < seen.dimension; ++c)
            scores[j] += static_cast<double>(query[c]) * seen.keys[j * seen.dimension + c];
        sum += scores[j] = std::exp(scores[j] * scale);
    }
    for (size_t j = 0; j < seen.length; ++j) {
        for (size_t c = 0; c < seen.dimension; ++c)
            out[c] += scores[j] / sum * seen.values[j * seen.dimension + c];
    }
    return out;
}

}  // namespace

TEST_CASE("cached attention of every instruction set is that of double precision") {
    Random random(8);
    for (const size_t dimension : {2u, 6u, 8u, 16u, 24u, 64u, 80u, 128u, 130u}) {
        for (const size_t length : {1u, 2u, 15u, 16u, 17u, 100u}) {
            const size_t floats = length * dimension;
            // Behind the last row stands something finite.
            Buffer<float> keys(floats + 15), values(floats + 15), query(dimension);
            fill_normal(keys, random, 1);
            fill_normal(values, random, 1);
            fill_normal(query, random, 2);
            const CachedHead seen{keys.data(), values.data(), length, dimension};
            const auto wanted = expected(seen, query.data(), 0.3F);
            for (const Isa isa : available_isas()) {
                CAPTURE(name_of(isa));
                CAPTURE(dimension);
                CAPTURE(length);
                Buffer<float> out(dimension), scratch(cached_attention_scratch(length, dimension), 0, true);
                kernel_table(isa).cached_attention(seen, query.data(), 0.3F, out.data(), scratch.data());
                CHECK((out.intact() && scratch.intact() && keys.intact() && values.intact()));
                double worst = 0;
                for (size_t c = 0; c < dimension; ++c)
                    worst = std::max(worst, std::fabs(out[c] - wanted[c]));
                CHECK(worst < 1e-5);
            }
        }
    }
}

TEST_CASE("many queries together see the tokens up to their own, as one by one") {
    Random random(9);
    for (const size_t dimension : {2u, 6u, 8u, 16u, 24u, 64u, 84u, 128u, 130u}) {
        for (const size_t before : {0u, 1u, 15u, 40u}) {
            for (const size_t count : {1u, 6u, 12u, 13u, 50u}) {
                const size_t length = before + count, floats = length * dimension, stride = dimension + 3;
                Buffer<float> keys(floats + 15), values(floats + 15), queries(count * stride);
                fill_normal(keys, random, 1);
                fill_normal(values, random, 1);
                fill_normal(queries, random, 2);
                for (const Isa isa : available_isas()) {
                    CAPTURE(name_of(isa));
                    CAPTURE(dimension);
                    CAPTURE(before);
                    CAPTURE(count);
                    Buffer<float> out(count * stride),
                        scratch(cached_attention_scratch(length, dimension), 0, true);
                    kernel_table(isa).cached_queries({keys.data(), values.data(), length, dimension},
                                                     {queries.data(), stride, count, out.data(), stride},
                                                     0.3F, scratch.data());
                    CHECK((out.intact() && scratch.intact() && keys.intact() && values.intact()));
                    double worst = 0;
                    for (size_t i = 0; i < count; ++i) {
                        const CachedHead seen{keys.data(), values.data(), before + i + 1, dimension};
                        const auto wanted = expected(seen, queries.data() + i * stride, 0.3F);
                        for (size_t c = 0; c < dimension; ++c)
                            worst = std::max(worst, std::fabs(out[i * stride + c] - wanted[c]));
                    }
                    CHECK(worst < 1e-5);
                }
            }
        }
    }
}
