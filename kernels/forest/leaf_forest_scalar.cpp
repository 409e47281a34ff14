// The specification of leaf forests, for rows of every type.
#include <algorithm>
#include <bit>
#include <cmath>

#include "base/float16.h"
#include "kernels/activation/activation.h"
#include "kernels/cpu/scalar.h"
#include "kernels/forest/leaf_scratch.h"
#include "kernels/forest/walk_scalar.h"
#include "kernels/quantize/rotate.h"

namespace espalier {

size_t scratch_bytes(const LeafForest& forest, size_t tokens) {
    return LeafLayout(forest, tokens).bytes;
}

}  // namespace espalier

namespace espalier::scalar {
namespace {

// Stored values as numbers; 8-bit ones without their scale.
float number(const float* values, size_t i) {
    return values[i];
}
float number(const uint16_t* values, size_t i) {
    return float_from_bfloat(values[i]);
}
float number(const int8_t* values, size_t i) {
    return static_cast<float>(values[i]);
}

// A value of a packed matrix (kernels/dense/panel.h), with `columns` columns in all, padding included.
template <class Value>
Value packed(const uint32_t* matrix, TensorType type, size_t k, size_t columns, size_t row, size_t column) {
    const uint32_t word = matrix[packed_word(type, k, columns, row, column)];
    if constexpr (sizeof(Value) == 4) {
        return std::bit_cast<float>(word);
    } else if constexpr (sizeof(Value) == 2) {
        return static_cast<uint16_t>(word >> (row % 2 * 16));
    } else {
        return static_cast<int8_t>(static_cast<int>(word >> (row % 4 * 8) & 0xffu) - 128);
    }
}

template <class Value, class Node>
class Token {
   public:
    Token(const LeafForest& f, const Value* x, float x_scale) : f_(f), x_(x), x_scale_(x_scale) {}

    // x: in place of the token's own, if not null.
    uint32_t walk(size_t tree, const float* x, float& margin) const {
        const size_t nodes = f_.leaves() - 1;
        size_t node = 0;
        margin = INFINITY;
        for (size_t level = 0; level < f_.depth; ++level) {
            const size_t row = tree * nodes + node;
            const Node* weight = static_cast<const Node*>(f_.node_weight) + row * f_.hidden;
            float sum = 0;
            for (size_t i = 0; i < f_.hidden; ++i)
                sum += (x != nullptr ? x[i] : number(x_, i)) * number(weight, i);
            const float value = (x != nullptr ? 1.0F : x_scale_) * sum - f_.node_threshold[row];
            margin = smaller_margin(margin, value);
            node = 2 * node + (goes_right(value, f_.tie) ? 2 : 1);
        }
        return static_cast<uint32_t>(node - nodes);
    }

    // The activations of group g, before they are rounded. gates: room for as many, of a gated forest.
    void activations(const LeafNeurons& neurons, size_t g, size_t width, float* a, float* gates) const {
        up(neurons, g, width, a);
        if (f_.gated) up(f_.gate, g, width, gates);
        activate(f_.activation, f_.gated ? gates : a, width);
        for (size_t n = 0; n < width && f_.gated; ++n)
            a[n] *= gates[n];
        if (f_.rotated_activations) rotate(a, width);
        for (size_t n = 0; n < width && sizeof(Value) == 1; ++n)
            a[n] *= neurons.down_scale[g * leaf_padded(width) + n];
    }

    // The pre-activations. One copy of the code for neurons and gates.
    [[gnu::noinline]] void up(const LeafNeurons& neurons, size_t g, size_t width, float* a) const {
        const size_t padded = leaf_padded(width);
        const uint32_t* weight = neurons.up + g * packed_words(f_.rows, f_.hidden, padded);
        for (size_t n = 0; n < width; ++n) {
            const float bias = neurons.up_bias[g * padded + n];
            const auto at = [&](size_t i) { return packed<Value>(weight, f_.rows, f_.hidden, padded, i, n); };
            if constexpr (sizeof(Value) == 1) {
                int32_t sum = 0;
                for (size_t i = 0; i < f_.hidden; ++i)
                    sum += x_[i] * at(i);
                a[n] = static_cast<float>(sum) * (x_scale_ * neurons.up_scale[g * padded + n]) + bias;
            } else {
                a[n] = bias;
                for (size_t i = 0; i < f_.hidden; ++i) {
                    const Value w = at(i);
                    a[n] += number(x_, i) * number(&w, 0);
                }
            }
        }
    }

    // Output i of group g's down rows for rounded activations `a`: added to `sum`, float or exact integer.
    template <class Sum>
    void down(const LeafNeurons& neurons, size_t g, size_t width, const Value* a, size_t i, Sum& sum) const {
        const size_t padded = leaf_padded(f_.hidden);
        const uint32_t* weight = neurons.down + g * packed_words(f_.rows, width, padded);
        for (size_t n = 0; n < width; ++n) {
            const auto w = packed<Value>(weight, f_.rows, width, padded, n, i);
            if constexpr (sizeof(Value) == 1) {
                sum += a[n] * w;
            } else {
                sum += number(a, n) * number(&w, 0);
            }
        }
    }

   private:
    const LeafForest& f_;
    const Value* x_;
    float x_scale_;
};

// 8 bits, one scale for all values: a token's scale. NaN where a value is not finite.
float rounded(const float* a, size_t count, int8_t* stored) {
    float largest = 0;
    bool finite = true;
    for (size_t n = 0; n < count; ++n) {
        finite = finite && std::isfinite(a[n]);
        largest = std::fmax(largest, std::fabs(a[n]));
    }
    const float steps = finite && largest > 1e-35F ? 127.0F / largest : 0.0F;
    for (size_t n = 0; n < count; ++n)
        stored[n] = static_cast<int8_t>(finite ? std::nearbyint(a[n] * steps) : 0.0F);
    return finite ? largest / 127.0F : NAN;
}
float rounded(const float* a, size_t count, uint16_t* stored) {
    for (size_t n = 0; n < count; ++n)
        stored[n] = bfloat_from_float(a[n]);
    return 1;
}
float rounded(const float* a, size_t count, float* stored) {
    std::copy(a, a + count, stored);
    return 1;
}

template <class Value, class Node>
void leaf_forest(const LeafForest& f, const ForestCall& call) {
    const LeafScratch scratch(f, call.tokens, call.scratch);
    float* a = scratch.activations;
    // A block of activations is far more than one token's, and hidden: room for its rounded values and sums.
    const size_t neurons = f.shared_width + f.leaf_width;
    auto* stored = sizeof(Value) == 4 ? reinterpret_cast<Value*>(a + neurons)
                                      : reinterpret_cast<Value*>(scratch.rounded);
    for (size_t t = 0; t < call.tokens; ++t) {
        const Token<Value, Node> token(f, static_cast<const Value*>(call.x) + t * f.hidden,
                                       sizeof(Value) == 1 ? call.x_scale[t] : 1.0F);
        float* y = call.y + t * f.hidden;
        for (size_t k = 0; k < f.trees; ++k) {
            uint32_t& leaf = call.routes.leaf[t * f.trees + k];
            if (call.step != ForestStep::leaves)
                leaf = token.walk(k, call.walk_x != nullptr ? call.walk_x + t * f.hidden : nullptr,
                                  call.routes.margin[t * f.trees + k]);
            if (call.step == ForestStep::walk || leaf < call.first_leaf || leaf >= call.last_leaf) continue;
            for (size_t i = 0; i < f.hidden && k == 0 && !call.accumulate; ++i)
                y[i] = 0;
            const size_t g = k * f.leaves() + leaf;
            const size_t shared = k == 0 ? f.shared_width : 0;
            if (shared > 0) token.activations(f.shared, 0, shared, a, scratch.gates);
            if (f.leaf_width > 0) token.activations(f.leaf, g, f.leaf_width, a + shared, scratch.gates);
            const float scale = rounded(a, shared + f.leaf_width, stored);
            for (size_t i = 0; i < f.hidden; ++i) {
                const float bias = f.bias[g * leaf_padded(f.hidden) + i];
                std::conditional_t<sizeof(Value) == 1, int32_t, float> sum = 0;
                if (shared > 0) token.down(f.shared, 0, shared, stored, i, sum);
                if (f.leaf_width > 0) token.down(f.leaf, g, f.leaf_width, stored + shared, i, sum);
                y[i] += bias + scale * static_cast<float>(sum);
            }
        }
    }
}

}  // namespace

void leaf_forest_f32(const LeafForest& forest, const ForestCall& call) {
    leaf_forest<float, float>(forest, call);
}
void leaf_forest_bf16(const LeafForest& forest, const ForestCall& call) {
    if (forest.node_rows == TensorType::f32) {
        leaf_forest<uint16_t, float>(forest, call);
    } else {
        leaf_forest<uint16_t, uint16_t>(forest, call);
    }
}
void leaf_forest_s8(const LeafForest& forest, const ForestCall& call) {
    if (forest.node_rows == TensorType::f32) {
        leaf_forest<int8_t, float>(forest, call);
    } else {
        leaf_forest<int8_t, uint16_t>(forest, call);
    }
}

}  // namespace espalier::scalar
