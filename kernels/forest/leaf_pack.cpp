#include "kernels/forest/leaf_pack.h"

#include <cstring>

#include "base/checked.h"
#include "base/float16.h"
#include "kernels/dense/panel.h"
#include "kernels/dense/panel_pack.h"
#include "kernels/quantize/quantize.h"

namespace espalier {
namespace {

// neuron n's values: weight[n * neuron_stride + i * stride], i < hidden.
void pack_up(const LeafForest& f, const float* weight, size_t width, uint32_t* target, float* scales) {
    for (size_t n = 0; n < width && scales != nullptr; ++n)
        scales[n] = row_scale(weight + n * f.hidden, f.hidden);
    pack_panels(f.rows, {weight, 1, f.hidden}, f.hidden, width, leaf_padded(width), scales, nullptr, target);
}

void pack_down(const LeafForest& f, const float* weight, size_t neuron_stride, size_t stride, size_t width,
               uint32_t* target, float* scales) {
    for (size_t n = 0; n < width && scales != nullptr; ++n)
        scales[n] = row_scale(weight + n * neuron_stride, f.hidden, stride);
    pack_panels(f.rows, {weight, neuron_stride, stride}, width, f.hidden, leaf_padded(f.hidden), nullptr,
                scales, target);
}

// Hands out 64-byte aligned pieces of `memory`; counts alone where that is null.
class Layout {
   public:
    explicit Layout(std::byte* memory) : memory_(memory) {}
    template <class T>
    T* take(size_t count) {
        T* place = memory_ != nullptr && count > 0 ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
        used_ += round_up(count * sizeof(T), 64);
        return place;
    }
    size_t used() const { return used_; }

   private:
    std::byte* memory_;
    size_t used_ = 0;
};

}  // namespace

LeafPacker::Places LeafPacker::lay_out(const LeafForest& f, std::byte* memory, bool leaves_lie_packed) {
    Layout layout(memory);
    Places places;
    // lie_packed: up and down stay where they are; has_down: a gate has no second layer.
    const auto neurons = [&](size_t width, size_t groups, bool lie_packed, bool has_down) {
        const size_t padded = leaf_padded(width), packed = lie_packed ? 0 : groups,
                     scales = f.rows == TensorType::s8 ? packed * padded : 0;
        Neurons n;
        n.up = layout.take<uint32_t>(packed * packed_words(f.rows, f.hidden, padded));
        n.up_bias = layout.take<float>(groups * padded);
        n.up_scale = layout.take<float>(scales);
        if (!has_down) return n;
        n.down = layout.take<uint32_t>(packed * packed_words(f.rows, width, leaf_padded(f.hidden)));
        n.down_scale = layout.take<float>(scales);
        return n;
    };
    places.leaf = neurons(f.leaf_width, f.groups(), leaves_lie_packed, true);
    places.shared = neurons(f.shared_width, 1, false, true);
    if (f.gated) places.gate = neurons(f.leaf_width, f.groups(), false, false);
    places.bias = layout.take<float>(f.groups() * leaf_padded(f.hidden));
    const size_t nodes = f.trees * (f.leaves() - 1);
    places.nodes = layout.take<uint16_t>(f.node_rows == TensorType::bf16 ? nodes * f.hidden : 0);
    places.bytes = layout.used();
    return places;
}

size_t LeafPacker::bytes(const LeafForest& shape, bool leaves_lie_packed) {
    return lay_out(shape, nullptr, leaves_lie_packed).bytes;
}

LeafPacker::LeafPacker(const LeafForest& shape, std::byte* memory, bool leaves_lie_packed)
    : forest_(shape), places_(lay_out(shape, memory, leaves_lie_packed)) {
    std::memset(memory, 0, places_.bytes);
    forest_.leaf = places_.leaf.packed();
    forest_.shared = places_.shared.packed();
    forest_.gate = places_.gate.packed();
    forest_.bias = places_.bias;
    forest_.node_weight = places_.nodes;
    forest_.node_threshold = nullptr;
}

void LeafPacker::nodes(const float* weight, const float* threshold) {
    forest_.node_threshold = threshold;
    if (forest_.node_rows == TensorType::f32) {
        forest_.node_weight = weight;
        return;
    }
    const size_t count = forest_.trees * (forest_.leaves() - 1) * forest_.hidden;
    for (size_t i = 0; i < count; ++i)
        places_.nodes[i] = bfloat_from_float(weight[i]);
}

void LeafPacker::pack_groups(const float* weight, Neurons& neurons) const {
    const LeafForest& f = forest_;
    const size_t padded = leaf_padded(f.leaf_width), words = packed_words(f.rows, f.hidden, padded);
    for (size_t g = 0; g < f.groups(); ++g)
        pack_up(f, weight + g * f.leaf_width * f.hidden, f.leaf_width, neurons.up + g * words,
                neurons.up_scale != nullptr ? neurons.up_scale + g * padded : nullptr);
}

void LeafPacker::up(const float* weight) {
    pack_groups(weight, places_.leaf);
}

void LeafPacker::gate(const float* weight) {
    pack_groups(weight, places_.gate);
}

void LeafPacker::down(const float* weight) {
    const LeafForest& f = forest_;
    const size_t padded = leaf_padded(f.leaf_width);
    const size_t words = packed_words(f.rows, f.leaf_width, leaf_padded(f.hidden));
    for (size_t g = 0; g < f.groups(); ++g)
        pack_down(f, weight + g * f.leaf_width * f.hidden, f.hidden, 1, f.leaf_width,
                  places_.leaf.down + g * words,
                  places_.leaf.down_scale != nullptr ? places_.leaf.down_scale + g * padded : nullptr);
}

void LeafPacker::packed_leaves(const uint32_t* up, const float* up_scale, const uint32_t* down,
                               const float* down_scale) {
    forest_.leaf.up = up;
    forest_.leaf.up_scale = up_scale;
    forest_.leaf.down = down;
    forest_.leaf.down_scale = down_scale;
}

void LeafPacker::up_bias(const float* bias) {
    const size_t width = forest_.leaf_width, padded = leaf_padded(width);
    for (size_t g = 0; g < forest_.groups(); ++g) {
        for (size_t n = 0; n < width; ++n)
            places_.leaf.up_bias[g * padded + n] = bias[g * width + n];
    }
}

void LeafPacker::output_bias(const float* bias) {
    const size_t hidden = forest_.hidden, padded = leaf_padded(hidden);
    for (size_t g = 0; g < forest_.groups(); ++g) {
        for (size_t i = 0; i < hidden; ++i)
            places_.bias[g * padded + i] += bias[g * hidden + i];
    }
}

void LeafPacker::shared_up(const float* weight) {
    pack_up(forest_, weight, forest_.shared_width, places_.shared.up, places_.shared.up_scale);
}

void LeafPacker::shared_up_bias(const float* bias) {
    for (size_t n = 0; n < forest_.shared_width; ++n)
        places_.shared.up_bias[n] = bias[n];
}

void LeafPacker::shared_down(const float* weight) {
    pack_down(forest_, weight, 1, forest_.shared_width, forest_.shared_width, places_.shared.down,
              places_.shared.down_scale);
}

void LeafPacker::shared_output_bias(const float* bias) {
    const size_t padded = leaf_padded(forest_.hidden);
    for (size_t leaf = 0; leaf < forest_.leaves(); ++leaf) {
        for (size_t i = 0; i < forest_.hidden; ++i)
            places_.bias[leaf * padded + i] += bias[i];
    }
}

}  // namespace espalier
