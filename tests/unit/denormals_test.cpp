// Denormals are zeros during a call, on every thread, and what the caller had is restored after it.
#include <doctest/doctest.h>

#include <cfloat>

#include "kernels/cpu/denormals.h"
#include "kernels/cpu/parallel.h"
#include "tests/skip.h"

namespace espalier {
namespace {

// A product below the normal range, made where the compiler cannot see it.
float tiny_product() {
    volatile float least = FLT_MIN, half = 0.5F;
    return least * half;
}

}  // namespace

TEST_CASE("for as long as the scope lasts, nested too") {
    CHECK(tiny_product() > 0);
#if defined(__SSE__) || defined(__aarch64__)
    {
        const FlushDenormals outer;
        CHECK(tiny_product() == 0);
        {
            const FlushDenormals inner;
            CHECK(tiny_product() == 0);
        }
        CHECK(tiny_product() == 0);
    }
#endif
    CHECK(tiny_product() > 0);
}

#if defined(__SSE__) || defined(__aarch64__)
TEST_CASE("every part of a parallel loop, if its caller has it; and none of it stays on the threads") {
    float product[2] = {1, 1};
    const auto run = [&] {
        parallel_for(2, 2, 1, [&](size_t begin, size_t end, int) {
            for (size_t i = begin; i < end; ++i)
                product[i] = tiny_product();
        });
    };
    {
        wake_threads(2);
        const FlushDenormals flush;
        run();
        CHECK(product[0] == 0);
        CHECK(product[1] == 0);
    }
#if defined(ESPALIER_THREADS)
#pragma omp parallel for num_threads(2)
#endif
    for (int i = 0; i < 2; ++i)
        product[i] = tiny_product();
    CHECK(product[0] > 0);
    CHECK(product[1] > 0);
}
#endif

}  // namespace espalier
