// The specification of neuron forests.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"
#include "kernels/forest/walk_scalar.h"

namespace espalier {

// One token's path through all trees: pre-activations and the rows they scale.
size_t scratch_bytes(const NeuronForest& forest, size_t) {
    const size_t path = forest.trees * (forest.depth + 1);
    return round_up(path * sizeof(float), 64) + round_up(path * sizeof(uint32_t), 64);
}

}  // namespace espalier

namespace espalier::scalar {

void neuron_forest(const NeuronForest& f, const ForestCall& call) {
    const auto* x = static_cast<const float*>(call.x);
    float* y = call.y;
    const ForestRoutes& routes = call.routes;
    if (!call.accumulate) std::fill(y, y + call.tokens * f.hidden, 0.0F);
    for (size_t t = 0; t < call.tokens; ++t, x += f.hidden, y += f.hidden) {
        for (size_t i = 0; i < f.hidden && f.out_bias != nullptr; ++i)
            y[i] += f.out_bias[i];
        for (size_t k = 0; k < f.trees; ++k) {
            size_t node = 0, last = 0;
            float margin = INFINITY;
            for (size_t level = 0; level <= f.depth; ++level) {
                const size_t row = k * f.nodes() + node;
                const float z = dot(x, static_cast<const float*>(f.in) + row * f.hidden, f.hidden) +
                                (f.in_bias != nullptr ? f.in_bias[row] : 0.0F);
                float a = z;
                activate(f.activation, &a, 1);
                for (size_t i = 0; i < f.hidden; ++i)
                    y[i] += a * static_cast<const float*>(f.out)[row * f.hidden + i];
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
