// The specification of the forests.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"

namespace espalier {

// Laid out by kernels/forest/forest-inl.h: activations of a block, leaf counts, token order.
size_t scratch_bytes(const LeafForest& forest, size_t tokens) {
    return round_up(leaf_token_block * forest.padded_width * sizeof(float), 64) +
           round_up((forest.leaves() + 1) * sizeof(uint32_t), 64) + round_up(tokens * sizeof(uint32_t), 64);
}

// One token's path through all trees: pre-activations and the rows they scale.
size_t scratch_bytes(const NeuronForest& forest, size_t) {
    const size_t path = forest.trees * (forest.depth + 1);
    return round_up(path * sizeof(float), 64) + round_up(path * sizeof(uint32_t), 64);
}

}  // namespace espalier

namespace espalier::scalar {
namespace {

float dot(const float* a, const float* b, size_t count) {
    float sum = 0;
    for (size_t i = 0; i < count; ++i)
        sum += a[i] * b[i];
    return sum;
}

bool goes_right(float value, TieRule tie) {
    return tie == TieRule::zero_goes_left ? value > 0 : value >= 0;
}

// A NaN margin stays NaN: it says that the walk means nothing.
float smaller_margin(float margin, float value) {
    const float distance = std::fabs(value);
    return distance < margin || std::isnan(distance) ? distance : margin;
}

}  // namespace

void leaf_forest(const LeafForest& f, const float* x, size_t tokens, float* y, const ForestRoutes& routes,
                 std::byte* scratch) {
    auto* a = reinterpret_cast<float*>(scratch);
    const size_t nodes = f.leaves() - 1;
    for (size_t t = 0; t < tokens; ++t, x += f.hidden, y += f.hidden) {
        for (size_t k = 0; k < f.trees; ++k) {
            size_t node = 0;
            float margin = INFINITY;
            for (size_t level = 0; level < f.depth; ++level) {
                const size_t row = k * nodes + node;
                const float value = dot(x, f.node_weight + row * f.hidden, f.hidden) - f.node_threshold[row];
                margin = smaller_margin(margin, value);
                node = 2 * node + (goes_right(value, f.tie) ? 2 : 1);
            }
            const size_t leaf = node - nodes, g = k * f.leaves() + leaf;
            routes.leaf[t * f.trees + k] = static_cast<uint32_t>(leaf);
            routes.margin[t * f.trees + k] = margin;
            for (size_t n = 0; n < f.padded_width; ++n)
                a[n] = f.up_bias != nullptr ? f.up_bias[g * f.padded_width + n] : 0.0F;
            for (size_t i = 0; i < f.hidden; ++i) {
                for (size_t n = 0; n < f.padded_width; ++n)
                    a[n] += x[i] * f.up[(g * f.hidden + i) * f.padded_width + n];
            }
            activate(f.activation, a, f.padded_width);
            for (size_t i = 0; i < f.hidden; ++i) {
                float sum = f.leaf_bias != nullptr ? f.leaf_bias[g * f.hidden + i] : 0.0F;
                for (size_t n = 0; n < f.leaf_width; ++n)
                    sum += a[n] * f.down[(g * f.leaf_width + n) * f.hidden + i];
                y[i] += sum;
            }
        }
    }
}

void neuron_forest(const NeuronForest& f, const float* x, size_t tokens, float* y, const ForestRoutes& routes,
                   std::byte*) {
    for (size_t t = 0; t < tokens; ++t, x += f.hidden, y += f.hidden) {
        for (size_t i = 0; i < f.hidden && f.out_bias != nullptr; ++i)
            y[i] += f.out_bias[i];
        for (size_t k = 0; k < f.trees; ++k) {
            size_t node = 0, last = 0;
            float margin = INFINITY;
            for (size_t level = 0; level <= f.depth; ++level) {
                const size_t row = k * f.nodes() + node;
                const float z =
                    dot(x, f.in + row * f.hidden, f.hidden) + (f.in_bias != nullptr ? f.in_bias[row] : 0.0F);
                float a = z;
                activate(f.activation, &a, 1);
                for (size_t i = 0; i < f.hidden; ++i)
                    y[i] += a * f.out[row * f.hidden + i];
                if (level < f.depth)
                    margin = smaller_margin(margin, z);  // the last node's sign chooses nothing
                last = node;
                node = 2 * node + (goes_right(z, f.tie) ? 2 : 1);
            }
            routes.leaf[t * f.trees + k] = static_cast<uint32_t>(last - ((size_t{1} << f.depth) - 1));
            routes.margin[t * f.trees + k] = margin;
        }
    }
}

}  // namespace espalier::scalar
