// Activations of every instruction set against double precision.
#include "kernels/activation/activation.h"

#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/reference.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// Every size of number that a network meets, dense where the functions bend.
std::vector<float> sweep() {
    std::vector<float> values{0.0F, -0.0F, 1e-45F, -1e-45F, 1e-38F, -1e-38F, 1e30F, -1e30F, 3e38F, -3e38F};
    for (float x = -30; x < 30; x += 1.0F / 512)
        values.push_back(x);
    Random random(31);
    for (int i = 0; i < 20000; ++i)
        values.push_back(std::ldexp(random.uniform(-1, 1), static_cast<int>(random.between(0, 40)) - 30));
    return values;
}

}  // namespace

TEST_CASE("every activation stays within its budget") {
    const auto values = sweep();
    for (const Isa isa : available_isas()) {
        for (const Activation activation : all_activations) {
            Buffer<float> found(values.size());
            std::copy(values.begin(), values.end(), found.begin());
            kernel_table(isa).activate(activation, found.data(), found.size());
            CHECK(found.intact());
            Budget budget;
            float worst_at = 0;
            for (size_t i = 0; i < values.size(); ++i) {
                // silu's exp(-x) overflows below -88, where the result is 0 to within 1e-36. NEON of 32-bit
                // Arm takes numbers below the normal range as 0, always.
                const bool flushes = isa == Isa::neon && sizeof(void*) == 4;
                const double slack = activation == Activation::silu ? 1e-36 : flushes ? 1.2e-38 : 1e-44;
                const double before = budget.worst();
                budget.add(found[i], activated(activation, values[i]),
                           activation_budget(activation, values[i]) + slack);
                if (budget.worst() > before) worst_at = values[i];
            }
            MESSAGE(named(isa), " ", named(activation), ": largest share of its budget ", budget.worst(),
                    " at ", worst_at);
            CHECK(budget.worst() <= 1);
        }
    }
}

TEST_CASE("a value's result does not depend on where it stands or on the count") {
    Random random(32);
    for (const Isa isa : available_isas()) {
        for (const Activation activation : all_activations) {
            Buffer<float> all(70);
            fill_normal(all, random, 3);
            Buffer<float> whole(70);
            std::copy(all.begin(), all.end(), whole.begin());
            kernel_table(isa).activate(activation, whole.data(), 70);
            for (size_t count = 0; count <= 70; ++count) {
                Buffer<float> part(count);
                std::copy(all.end() - static_cast<ptrdiff_t>(count), all.end(), part.begin());
                kernel_table(isa).activate(activation, part.data(), count);
                CHECK(part.intact());
                REQUIRE(same_bits(part.data(), whole.data() + 70 - count, count));
            }
        }
    }
}

TEST_CASE("infinities and NaN: the same on every instruction set, and NaN is never lost") {
    for (const Isa isa : available_isas()) {
        for (const Activation activation : all_activations) {
            CAPTURE(named(isa));
            CAPTURE(named(activation));
            float found[3] = {INFINITY, -INFINITY, NAN}, scalar[3] = {INFINITY, -INFINITY, NAN};
            kernel_table(isa).activate(activation, found, 3);
            kernel_table(Isa::scalar).activate(activation, scalar, 3);
            CHECK(std::isnan(found[2]));
            for (int i = 0; i < 3; ++i) {
                CAPTURE(found[i]);
                CAPTURE(scalar[i]);
                CHECK(same_class(found[i], scalar[i]));
            }
        }
    }
}
