// A random leaf forest, packed into rows of any type, and what it computes in double precision.
#pragma once

#include "base/float16.h"
#include "kernels/forest/leaf_pack.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/rotate.h"
#include "tests/kernels/forest_support.h"

namespace espalier::test {

class LeafFixture {
   public:
    using Kernel = LeafForestKernel;
    LeafFixture(const ForestSize& size, Random& random, TensorType rows = TensorType::f32,
                TensorType nodes = TensorType::f32)
        : forest(shape_of(size, rows, nodes)),
          leaf_(forest.groups(), size.leaf_width, size.hidden),
          gate_(forest.groups(), forest.gated ? size.leaf_width : 0, size.hidden),
          shared_(1, size.shared_width, size.hidden),
          node_weight_(size.trees * (forest.leaves() - 1) * size.hidden),
          node_threshold_(size.trees * (forest.leaves() - 1)),
          output_bias_(forest.groups() * size.hidden),
          shared_output_bias_(size.hidden),
          memory_(LeafPacker::bytes(forest), 0, true) {
        fill(node_weight_, random, size, static_cast<double>(size.hidden));
        fill(node_threshold_, random, size, 16);
        for (float& weight : node_weight_)
            weight = nodes == TensorType::bf16 ? float_from_bfloat(bfloat_from_float(weight)) : weight;
        leaf_.fill_all(random, size);
        shared_.fill_all(random, size);
        gate_.fill_all(random, size);
        if (size.output_bias) {
            fill(output_bias_, random, size, 16);
            if (size.shared_width > 0) fill(shared_output_bias_, random, size, 16);
        }
        forest.rotated_activations = rows == TensorType::s8 && random.coin();
        pack(size);
    }
    static Kernel kernel(const KernelTable& table) { return table.leaf_forest_f32; }
    Buffer<float>& thresholds() { return node_threshold_; }
    bool intact() { return node_weight_.intact() && node_threshold_.intact() && memory_.intact(); }
    // x: a token's values (8-bit ones times their scale).
    ExpectedToken expected(const float* x, const float* y) const;
    LeafForest forest;

   private:
    // Row-major weights of a group of neurons; `up` and `down` become what their rows' type stores.
    struct Neurons {
        Neurons(size_t groups_, size_t width_, size_t hidden_)
            : groups(groups_),
              width(width_),
              hidden(hidden_),
              up(groups * width * hidden),
              down(groups * width * hidden),
              up_bias(groups * width) {}
        void fill_all(Random& random, const ForestSize& size) {
            fill(up, random, size, static_cast<double>(hidden));
            fill(down, random, size, static_cast<double>(width));
            if (size.up_bias) fill(up_bias, random, size, 16);
        }
        void store_as(TensorType type) {
            down_scale.resize(groups * width);
            for (size_t n = 0; n < groups * width; ++n) {
                store_row(type, up.data() + n * hidden);
                down_scale[n] = store_row(type, down.data() + n * hidden);
            }
        }
        float store_row(TensorType type, float* row) const {
            const float scale = row_scale(row, hidden);
            std::vector<int8_t> bytes(hidden);
            if (type == TensorType::s8) quantize_row(row, scale, bytes.data(), hidden);
            for (size_t i = 0; i < hidden; ++i) {
                if (type == TensorType::s8) row[i] = scale * bytes[i];
                if (type == TensorType::bf16) row[i] = float_from_bfloat(bfloat_from_float(row[i]));
            }
            return scale;
        }
        size_t groups, width, hidden;
        Buffer<float> up, down, up_bias;
        std::vector<float> down_scale;
    };

    static LeafForest shape_of(const ForestSize& size, TensorType rows, TensorType nodes) {
        LeafForest f;
        f.hidden = size.hidden;
        f.trees = size.trees;
        f.depth = size.depth;
        f.leaf_width = size.leaf_width;
        f.shared_width = size.shared_width;
        f.gated = size.gated && size.leaf_width > 0;
        f.rows = rows;
        f.node_rows = nodes;
        return f;
    }

    void pack(const ForestSize& size) {
        LeafPacker packer(forest, memory_.data());
        if (size.depth > 0) packer.nodes(node_weight_.data(), node_threshold_.data());
        if (size.leaf_width > 0) {
            packer.up(leaf_.up.data());
            packer.up_bias(leaf_.up_bias.data());
            if (forest.gated) packer.gate(gate_.up.data());
            packer.down(leaf_.down.data());
        }
        packer.output_bias(output_bias_.data());
        if (size.shared_width > 0) {
            // The second layer of a dense part is stored by outputs.
            std::vector<float> down(size.hidden * size.shared_width);
            for (size_t n = 0; n < size.shared_width; ++n) {
                for (size_t i = 0; i < size.hidden; ++i)
                    down[i * size.shared_width + n] = shared_.down[n * size.hidden + i];
            }
            packer.shared_up(shared_.up.data());
            packer.shared_up_bias(shared_.up_bias.data());
            packer.shared_down(down.data());
            packer.shared_output_bias(shared_output_bias_.data());
        }
        leaf_.store_as(forest.rows);
        gate_.store_as(forest.rows);
        shared_.store_as(forest.rows);
        forest = packer.forest();
    }

    struct Neuron {
        double a, slack, scale;
        const float* row;
    };
    uint32_t walk(const float* x, size_t tree, ExpectedToken& out) const;
    void add(const Neurons& neurons, size_t group, const float* x, std::vector<Neuron>& active) const;
    static void turn(std::vector<Neuron>& active, size_t first);

    Neurons leaf_, gate_, shared_;
    Buffer<float> node_weight_, node_threshold_, output_bias_, shared_output_bias_;
    Buffer<std::byte> memory_;
};

inline uint32_t LeafFixture::walk(const float* x, size_t tree, ExpectedToken& out) const {
    const LeafForest& f = forest;
    size_t node = 0;
    for (size_t level = 0; level < f.depth; ++level) {
        const size_t row = tree * (f.leaves() - 1) + node;
        const Dot test =
            dot(x, node_weight_.data() + row * f.hidden, 1, f.hidden, -node_threshold_.data()[row]);
        note_margin(out, test);
        node = 2 * node + (right(test.value, f.tie) ? 2 : 1);
    }
    return static_cast<uint32_t>(node - (f.leaves() - 1));
}

inline void LeafFixture::add(const Neurons& neurons, size_t group, const float* x,
                             std::vector<Neuron>& active) const {
    for (size_t n = group * neurons.width; n < (group + 1) * neurons.width; ++n) {
        const Dot z = dot(x, neurons.up.data() + n * forest.hidden, 1, forest.hidden, neurons.up_bias[n]);
        const auto [a, slack] =
            forest.gated
                ? gated_activation(forest.activation,
                                   dot(x, gate_.up.data() + n * forest.hidden, 1, forest.hidden, 0), z)
                : activation_of(forest.activation, z);
        active.push_back({a, slack, neurons.down_scale[n], neurons.down.data() + n * forest.hidden});
    }
}

// Activations from `first` on, as the forest turns them (rotate_test.cpp has the rotation against its
// matrix).
inline void LeafFixture::turn(std::vector<Neuron>& active, size_t first) {
    const size_t count = active.size() - first;
    if (rotation_span(count) == 1) return;
    std::vector<double> values;
    double slack = 0;
    for (size_t n = first; n < active.size(); ++n) {
        values.push_back(active[n].a);
        slack += active[n].slack + 1e-6 * std::fabs(active[n].a);
    }
    rotate(values.data(), count);
    for (size_t n = 0; n < count; ++n) {
        active[first + n].a = values[n];
        active[first + n].slack = slack;
    }
}

inline ExpectedToken LeafFixture::expected(const float* x, const float* y) const {
    const LeafForest& f = forest;
    ExpectedToken out;
    out.y.assign(y, y + f.hidden);
    std::vector<double> absolute(f.hidden), carried(f.hidden);
    const auto add_constant = [&](size_t i, double value) {
        out.y[i] += value;
        absolute[i] += std::fabs(value);
    };
    for (size_t i = 0; i < f.hidden; ++i)
        absolute[i] = std::fabs(y[i]);
    for (size_t k = 0; k < f.trees; ++k) {
        out.margin.push_back(INFINITY);
        out.margin_budget.push_back(0);
        out.leaf.push_back(walk(x, k, out));
        const size_t g = k * f.leaves() + out.leaf.back();
        std::vector<Neuron> active;
        if (k == 0) add(shared_, 0, x, active);
        if (f.rotated_activations) turn(active, 0);
        const size_t first = active.size();
        add(leaf_, g, x, active);
        if (f.rotated_activations) turn(active, first);
        double largest = 0;
        for (const Neuron& n : active)
            largest = std::fmax(largest, std::fabs(n.a * n.scale));
        for (size_t i = 0; i < f.hidden; ++i) {
            add_constant(i, output_bias_[g * f.hidden + i]);
            if (k == 0) add_constant(i, shared_output_bias_[i]);
            for (const Neuron& n : active) {
                add_constant(i, n.a * n.row[i]);
                // What rounding the activation to its stored type may take: half a unit in bfloat16's last
                // place, or half a step of the token's 8-bit scale.
                double rounding = 0;
                if (f.rows == TensorType::bf16) rounding = 0x1.02p-8 * std::fabs(n.a);
                if (f.rows == TensorType::s8 && n.scale > 0) rounding = 0.501 * largest / 127 / n.scale;
                carried[i] += (n.slack + rounding) * std::fabs(n.row[i]);
            }
        }
    }
    for (size_t i = 0; i < f.hidden; ++i)
        out.budget.push_back(carried[i] +
                             sum_budget(f.trees * (f.leaf_width + 2) + f.shared_width, absolute[i]));
    return out;
}

}  // namespace espalier::test
