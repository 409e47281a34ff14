// The specification of leaf forests.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"
#include "kernels/forest/walk_scalar.h"

namespace espalier {

// Laid out by kernels/forest/leaf_forest-inl.h: activations of a block, leaf counts, token order.
size_t scratch_bytes(const LeafForest& forest, size_t tokens) {
    return round_up(leaf_token_block * forest.padded_width * sizeof(float), 64) +
           round_up((forest.leaves() + 1) * sizeof(uint32_t), 64) + round_up(tokens * sizeof(uint32_t), 64);
}

}  // namespace espalier

namespace espalier::scalar {

void leaf_forest(const LeafForest& f, const ForestCall& call) {
    const auto* x = static_cast<const float*>(call.x);
    float* y = call.y;
    const ForestRoutes& routes = call.routes;
    auto* a = reinterpret_cast<float*>(call.scratch);
    if (!call.accumulate) std::fill(y, y + call.tokens * f.hidden, 0.0F);
    const size_t nodes = f.leaves() - 1;
    for (size_t t = 0; t < call.tokens; ++t, x += f.hidden, y += f.hidden) {
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

}  // namespace espalier::scalar
