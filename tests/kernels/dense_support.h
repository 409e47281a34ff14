// Dense layers with random weights, and what they compute in double precision.
#pragma once

#include "kernels/dense/dense.h"
#include "tests/kernels/reference.h"

namespace espalier::test {

struct DenseFixture {
    DenseFixture(const DenseShape& s, size_t rows, Random& random)
        : shape(s), weight(s.outputs * s.inputs), bias(s.outputs), x(padded_rows(rows) * s.inputs) {
        fill_normal(weight, random, 1 / std::sqrt(static_cast<float>(s.inputs)));
        fill_normal(bias, random);
        fill_normal(x, random);
    }
    std::unique_ptr<DenseLayer> prepare(const DenseBackend& backend) const {
        return backend.prepare(shape, weight.data(), shape.bias ? bias.data() : nullptr,
                               std::pmr::get_default_resource());
    }
    // The error of a value before its activation grows by at most 1.2 in it.
    struct Expected {
        double value, budget;
    };
    std::vector<Expected> expected(size_t rows) const {
        std::vector<Expected> out;
        out.reserve(rows * shape.outputs);
        for (size_t r = 0; r < rows; ++r) {
            for (size_t o = 0; o < shape.outputs; ++o) {
                const Dot z = dot(x.data() + r * shape.inputs, weight.data() + o * shape.inputs, 1,
                                  shape.inputs, shape.bias ? bias[o] : 0.0F);
                out.push_back({activated(shape.activation, z.value),
                               1.2 * z.budget + activation_budget(shape.activation, z.value)});
            }
        }
        return out;
    }
    DenseShape shape;
    Buffer<float> weight, bias, x;
};

inline void compare(const std::vector<DenseFixture::Expected>& expected, const Buffer<float>& found,
                    size_t count, double extra, Budget& budget) {
    for (size_t i = 0; i < count; ++i)
        budget.add(found[i], expected[i].value, expected[i].budget + extra);
}

inline std::vector<size_t> many_row_counts() {
    std::vector<size_t> rows;
    for (size_t r = 1; r <= 70; ++r)
        rows.push_back(r);
    for (const size_t r : {100, 128, 200, 257, 512, 1000})
        rows.push_back(r);
    return rows;
}

}  // namespace espalier::test
