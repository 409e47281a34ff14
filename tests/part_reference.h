// Every kind of feed-forward part, and norms, in double precision, straight from a float32 model's tensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "model_format/reader.h"
#include "model_format/schema.h"
#include "tests/activation_reference.h"

namespace espalier::test {

class PartReference {
   public:
    using Row = std::vector<double>;
    explicit PartReference(const ModelFile& file) : file_(file), s_(file.spec()) {}

    // What part p of block b makes of what it reads.
    Row part(size_t b, size_t p, const Row& x) const {
        const PartSpec& spec = s_.parts_of(s_.blocks[b])[p];
        const std::string name = part_tensor(b, p, "").text;
        if (spec.kind == PartKind::dense) return dense(spec, name, x);
        Row y(s_.hidden);
        for (size_t k = 0; k < spec.trees; ++k)
            spec.kind == PartKind::leaf_forest ? leaf_tree(spec, name, k, x, y)
                                               : neuron_tree(spec, name, k, x, y);
        if (spec.kind == PartKind::neuron_forest && spec.has(part_flag::output_bias))
            add(y, row(name + "out.bias", 0), 1);
        return y;
    }
    // The norm of this name, LayerNorm or RMSNorm as the model has it.
    Row norm(const Row& x, const std::string& name) const {
        const auto count = static_cast<double>(x.size());
        double mean = 0, squares = 0;
        for (const double v : x)
            mean += s_.norm == Norm::layer_norm ? v / count : 0;
        for (const double v : x)
            squares += (v - mean) * (v - mean);
        Row y = row(name + ".weight", 0);
        for (size_t i = 0; i < x.size(); ++i)
            y[i] *= (x[i] - mean) / std::sqrt(squares / count + s_.norm_epsilon);
        if (file_.find(name + ".bias") != nullptr) add(y, row(name + ".bias", 0), 1);
        return y;
    }
    Row row(const std::string& name, size_t index) const {
        const TensorView& tensor = file_.at(name);
        const float* values = tensor.as<float>() + index * tensor.row_length();
        return {values, values + tensor.row_length()};
    }
    static void add(Row& y, const Row& x, double factor) {
        for (size_t i = 0; i < y.size(); ++i)
            y[i] += factor * x[i];
    }
    // The smallest margin of all walks so far.
    double least_margin() const { return least_margin_; }

   private:
    double product(const std::string& name, size_t index, const Row& x) const {
        const Row w = row(name, index);
        double sum = 0;
        for (size_t i = 0; i < x.size(); ++i)
            sum += w[i] * x[i];
        return sum;
    }
    double value(const std::string& name, size_t index) const { return file_.at(name).as<float>()[index]; }

    static std::string bias_of(const std::string& weight) {
        return weight.substr(0, weight.rfind('.')) + ".bias";
    }

    // Neuron n of the rows `up`, with its gate and bias.
    double neuron(const PartSpec& spec, const std::string& up, const std::string& gate,
                  const std::string& bias, size_t n, const Row& x) const {
        const double u = product(up, n, x) + (spec.has(part_flag::up_bias) ? value(bias, n) : 0);
        if (!spec.has(part_flag::gated)) return activated(spec.activation, u);
        const double gate_bias = spec.has(part_flag::gate_bias) ? value(bias_of(gate), n) : 0;
        return activated(spec.activation, product(gate, n, x) + gate_bias) * u;
    }
    Row dense(const PartSpec& spec, const std::string& name, const Row& x) const {
        Row inner, y;
        for (size_t n = 0; n < spec.width; ++n)
            inner.push_back(neuron(spec, name + "up.weight", name + "gate.weight", name + "up.bias", n, x));
        for (size_t o = 0; o < s_.hidden; ++o)
            y.push_back(product(name + "down.weight", o, inner) +
                        (spec.has(part_flag::output_bias) ? value(name + "down.bias", o) : 0));
        return y;
    }
    size_t child(const PartSpec& spec, size_t node, double test) const {
        least_margin_ = std::min(least_margin_, std::fabs(test));
        return 2 * node + (test > 0 || (test == 0 && spec.tie == TieRule::zero_goes_right) ? 2 : 1);
    }
    void leaf_tree(const PartSpec& spec, const std::string& name, size_t k, const Row& x, Row& y) const {
        const size_t nodes = spec.nodes_per_tree(), width = spec.leaf_width;
        size_t node = 0;
        for (size_t level = 0; level < spec.depth; ++level) {
            const size_t at = k * nodes + node;
            node =
                child(spec, node, product(name + "node.weight", at, x) - value(name + "node.threshold", at));
        }
        const size_t leaf = k * spec.leaves_per_tree() + node - nodes;
        for (size_t n = leaf * width; n < (leaf + 1) * width; ++n)
            add(y, row(name + "leaf.down.weight", n),
                neuron(spec, name + "leaf.up.weight", name + "leaf.gate.weight", name + "leaf.up.bias", n,
                       x));
        if (spec.has(part_flag::output_bias)) add(y, row(name + "leaf.bias", leaf), 1);
    }
    void neuron_tree(const PartSpec& spec, const std::string& name, size_t k, const Row& x, Row& y) const {
        size_t node = 0;
        for (size_t level = 0; level <= spec.depth; ++level) {
            const size_t n = k * spec.nodes_per_tree() + node;
            add(y, row(name + "out.weight", n),
                neuron(spec, name + "in.weight", name + "gate.weight", name + "in.bias", n, x));
            const double bias = spec.has(part_flag::up_bias) ? value(name + "in.bias", n) : 0;
            const double test = spec.routes_on == RoutesOn::gate ? product(name + "gate.weight", n, x)
                                                                 : product(name + "in.weight", n, x) + bias;
            if (level < spec.depth) node = child(spec, node, test);
        }
    }

    const ModelFile& file_;
    const ModelSpec& s_;
    mutable double least_margin_ = INFINITY;
};

}  // namespace espalier::test
