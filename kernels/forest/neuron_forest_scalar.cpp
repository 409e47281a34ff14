// The specification of neuron forests.
#include <algorithm>
#include <cmath>

#include "base/float16.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"
#include "kernels/forest/neuron_plan.h"
#include "kernels/forest/walk_scalar.h"

namespace espalier::scalar {
namespace {

// Rows of nodes: of the neurons, or of their gates.
struct NodeRows {
    const void* rows;
    const float* scale;
};

// What differs between stored types: a node's product, and how its row is added to the output.

float product(const NeuronForest& f, const NodeRows& nodes, size_t row, const float* x, float) {
    return dot(x, static_cast<const float*>(nodes.rows) + row * f.hidden, f.hidden);
}

float product(const NeuronForest& f, const NodeRows& nodes, size_t row, const uint16_t* x, float) {
    const uint16_t* weights = static_cast<const uint16_t*>(nodes.rows) + row * f.hidden;
    float sum = 0;
    for (size_t i = 0; i < f.hidden; ++i)
        sum += float_from_bfloat(x[i]) * float_from_bfloat(weights[i]);
    return sum;
}

float product(const NeuronForest& f, const NodeRows& nodes, size_t row, const int8_t* x, float x_scale) {
    const int8_t* weights = static_cast<const int8_t*>(nodes.rows) + row * f.hidden;
    int32_t sum = 0;
    for (size_t i = 0; i < f.hidden; ++i)
        sum += int32_t{x[i]} * weights[i];
    return static_cast<float>(sum) * (nodes.scale[row] * x_scale);
}

// A node of a path: its row among all, its activation.
struct Step {
    size_t row;
    float a;
};

void add_path(const NeuronForest& f, const float*, Step* path, size_t count, float* y) {
    const auto* out = static_cast<const float*>(f.out);
    for (size_t n = 0; n < count; ++n) {
        for (size_t i = 0; i < f.hidden; ++i)
            y[i] += path[n].a * out[path[n].row * f.hidden + i];
    }
}

// Activations are rounded to bf16.
void add_path(const NeuronForest& f, const uint16_t*, Step* path, size_t count, float* y) {
    const auto* out = static_cast<const uint16_t*>(f.out);
    for (size_t n = 0; n < count; ++n) {
        const float a = float_from_bfloat(bfloat_from_float(path[n].a));
        for (size_t i = 0; i < f.hidden; ++i)
            y[i] += a * float_from_bfloat(out[path[n].row * f.hidden + i]);
    }
}

// Activations, times the scales of their rows, are rounded to 8 bits with one scale a token and tree.
// Infinities and NaN have no 8-bit form: they make the whole output NaN.
void add_path(const NeuronForest& f, const int8_t*, Step* path, size_t count, float* y) {
    const auto* out = static_cast<const int8_t*>(f.out);
    for (size_t start = 0; start < count; start += f.levels()) {
        const size_t end = start + f.levels();
        float largest = 0;
        bool finite = true;
        for (size_t n = start; n < end; ++n) {
            path[n].a *= f.out_scale[path[n].row];
            finite = finite && std::isfinite(path[n].a);
            largest = std::fmax(largest, std::fabs(path[n].a));
        }
        const float scale = finite ? largest / 127.0F : NAN;
        for (size_t i = 0; i < f.hidden; ++i) {
            int32_t sum = 0;
            for (size_t n = start; n < end && scale > 0; ++n) {
                const float step = std::nearbyint(path[n].a / scale);
                sum += static_cast<int32_t>(std::fmin(std::fmax(step, -127.0F), 127.0F)) *
                       out[path[n].row * f.hidden + i];
            }
            y[i] += static_cast<float>(sum) * scale;
        }
    }
}

template <class Value>
void neuron_forest_rows(const NeuronForest& f, const ForestCall& call) {
    // The path lies where the other instruction sets keep theirs: nothing is allocated.
    auto* path = reinterpret_cast<Step*>(call.scratch);
    const auto* x = static_cast<const Value*>(call.x);
    const NodeRows neurons{f.in, f.in_scale}, gates{f.gate, f.gate_scale};
    float* y = call.y;
    for (size_t t = 0; t < call.tokens; ++t, x += f.hidden, y += f.hidden) {
        if (!call.accumulate) std::fill(y, y + f.hidden, 0.0F);
        for (size_t i = 0; i < f.hidden && f.out_bias != nullptr; ++i)
            y[i] += f.out_bias[i];
        size_t n = 0;
        for (size_t k = 0; k < f.trees; ++k) {
            size_t node = 0, last = 0;
            float margin = INFINITY;
            for (size_t level = 0; level <= f.depth; ++level) {
                const size_t row = k * f.nodes() + node;
                const float x_scale = call.x_scale != nullptr ? call.x_scale[t] : 1.0F;
                const float z =
                    product(f, neurons, row, x, x_scale) + (f.in_bias != nullptr ? f.in_bias[row] : 0.0F);
                const float g = f.gated() ? product(f, gates, row, x, x_scale) : 0.0F;
                path[n] = {row, f.gated() ? g : z};
                activate(f.activation, &path[n].a, 1);
                if (f.gated()) path[n].a *= z;
                ++n;
                const float chooses = f.routes_on_gate ? g : z;
                if (level < f.depth)
                    margin = smaller_margin(margin, chooses);  // the last node's sign chooses nothing
                last = node;
                node = 2 * node + (goes_right(chooses, f.tie) ? 2 : 1);
            }
            call.routes.leaf[t * f.trees + k] = static_cast<uint32_t>(last - ((size_t{1} << f.depth) - 1));
            call.routes.margin[t * f.trees + k] = margin;
        }
        add_path(f, x, path, n, y);
    }
}

}  // namespace

void neuron_forest_f32(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_rows<float>(forest, call);
}

void neuron_forest_bf16(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_rows<uint16_t>(forest, call);
}

void neuron_forest_s8(const NeuronForest& forest, const ForestCall& call) {
    neuron_forest_rows<int8_t>(forest, call);
}

}  // namespace espalier::scalar
