// Random forests with guarded buffers, and what they compute in double precision.
#pragma once

#include "base/checked.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

namespace espalier::test {

struct ForestSize {
    size_t hidden = 1, trees = 1, depth = 0, leaf_width = 0;
    bool up_bias = true, output_bias = true;
    bool integers = false;    // small integers: every sum is exact, ties are frequent, budgets are zero
    size_t shared_width = 0;  // leaf forests only
    bool gated = false;
    bool routes_on_gate = false;  // gated neuron forests only
};

// What a kernel call gives, in guarded buffers of exactly the size it may write.
struct ForestResult {
    ForestResult(size_t tokens, size_t hidden, size_t trees, size_t scratch_bytes)
        : y(tokens * hidden), leaf(tokens * trees), margin(tokens * trees), scratch(scratch_bytes, 0, true) {}
    Buffer<float> y;
    Buffer<uint32_t> leaf;
    Buffer<float> margin;
    Buffer<std::byte> scratch;
    bool intact() { return y.intact() && leaf.intact() && margin.intact() && scratch.intact(); }
    ForestRoutes routes() { return {leaf.data(), margin.data()}; }
};

inline void fill(Buffer<float>& buffer, Random& random, const ForestSize& size, double inputs) {
    if (size.integers) {
        fill_integers(buffer, random, 2);
    } else {
        fill_normal(buffer, random, static_cast<float>(1.0 / std::sqrt(std::max(inputs, 1.0))));
    }
}

// A token's expected output with its error budget, and its walks.
struct ExpectedToken {
    std::vector<double> y, budget;
    std::vector<uint32_t> leaf;
    std::vector<double> margin, margin_budget;
    // A rounding may lead it elsewhere; in exact arithmetic nothing is rounded.
    bool hairline_walk(bool exact) const {
        for (const double m : margin) {
            if (!exact && m < hairline) return true;
        }
        return false;
    }
};

inline bool right(double value, TieRule tie) {
    return tie == TieRule::zero_goes_left ? value > 0 : value >= 0;
}
inline void note_margin(ExpectedToken& out, const Dot& test) {
    const double distance = std::fabs(test.value);
    if (distance < out.margin.back() || std::isnan(distance)) {
        out.margin.back() = distance;
        out.margin_budget.back() = test.budget;
    }
}

// A neuron's activation and what float32 may err by.
struct ExpectedActivation {
    double value, slack;
};
inline ExpectedActivation activation_of(Activation activation, const Dot& z) {
    return {activated(activation, z.value), 1.2 * z.budget + activation_budget(activation, z.value)};
}
// act(gate) * z. The activations' slopes are at most 1.2.
inline ExpectedActivation gated_activation(Activation activation, const Dot& gate, const Dot& z) {
    const ExpectedActivation a = activation_of(activation, gate);
    const double value = a.value * z.value;
    return {value, std::fabs(a.value) * z.budget + (std::fabs(z.value) + z.budget) * a.slack +
                       2 * unit * std::fabs(value)};
}

class NeuronFixture {
   public:
    using Kernel = NeuronForestKernel;
    NeuronFixture(const ForestSize& size, Random& random)
        : rows_(size.trees * ((size_t{2} << size.depth) - 1)),
          in_(rows_ * size.hidden),
          in_bias_(rows_),
          out_(rows_ * size.hidden, 64),
          gate_(size.gated ? rows_ * size.hidden : 0),
          out_bias_(size.hidden) {
        fill(in_, random, size, static_cast<double>(size.hidden));
        fill(in_bias_, random, size, 16);
        fill(out_, random, size, static_cast<double>(size.depth + 1));
        fill(out_bias_, random, size, 16);
        fill(gate_, random, size, static_cast<double>(size.hidden));
        forest.hidden = size.hidden;
        forest.trees = size.trees;
        forest.depth = size.depth;
        forest.in = in_.data();
        forest.in_bias = size.up_bias ? in_bias_.data() : nullptr;
        forest.out = out_.data();
        forest.out_bias = size.output_bias ? out_bias_.data() : nullptr;
        forest.gate = size.gated ? gate_.data() : nullptr;
        forest.routes_on_gate = size.routes_on_gate;
    }
    static Kernel kernel(const KernelTable& table) { return table.neuron_forest_f32; }
    Buffer<float>& thresholds() { return in_bias_; }
    bool intact() {
        return in_.intact() && in_bias_.intact() && out_.intact() && gate_.intact() && out_bias_.intact();
    }
    ExpectedToken expected(const float* x, const float* y) const;
    NeuronForest forest;

   private:
    size_t rows_;
    Buffer<float> in_, in_bias_, out_, gate_, out_bias_;
};

inline ExpectedToken NeuronFixture::expected(const float* x, const float* y) const {
    const NeuronForest& f = forest;
    ExpectedToken out;
    std::vector<double> absolute(f.hidden), carried(f.hidden);
    for (size_t i = 0; i < f.hidden; ++i) {
        const double bias = f.out_bias != nullptr ? f.out_bias[i] : 0;
        out.y.push_back(y[i] + bias);
        absolute[i] = std::fabs(y[i]) + std::fabs(bias);
    }
    for (size_t k = 0; k < f.trees; ++k) {
        out.margin.push_back(INFINITY);
        out.margin_budget.push_back(0);
        size_t node = 0, last = 0;
        for (size_t level = 0; level <= f.depth; ++level) {
            const size_t row = k * f.nodes() + node;
            const float bias = f.in_bias != nullptr ? f.in_bias[row] : 0;
            const Dot z = dot(x, static_cast<const float*>(f.in) + row * f.hidden, 1, f.hidden, bias);
            const float* gate = static_cast<const float*>(f.gate);
            const Dot g = f.gated() ? dot(x, gate + row * f.hidden, 1, f.hidden, 0) : z;
            const auto [a, slack] =
                f.gated() ? gated_activation(f.activation, g, z) : activation_of(f.activation, z);
            const Dot& chooses = f.routes_on_gate ? g : z;
            for (size_t i = 0; i < f.hidden; ++i) {
                const double weight = static_cast<const float*>(f.out)[row * f.hidden + i];
                out.y[i] += a * weight;
                absolute[i] += std::fabs(a * weight);
                carried[i] += slack * std::fabs(weight);
            }
            if (level < f.depth) note_margin(out, chooses);
            last = node;
            node = 2 * node + (right(chooses.value, f.tie) ? 2 : 1);
        }
        out.leaf.push_back(static_cast<uint32_t>(last - ((size_t{1} << f.depth) - 1)));
    }
    for (size_t i = 0; i < f.hidden; ++i)
        out.budget.push_back(carried[i] + sum_budget(f.trees * (f.depth + 1) + 2, absolute[i]));
    return out;
}

}  // namespace espalier::test
