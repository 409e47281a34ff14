// Packs row-major float32 weights into a LeafForest of any row type. Each method copies what it is given, so
// a caller that widens tensors one after the other may use one buffer for all; what is never given is zero.
// Of a forest with rotated activations, down rows are given turned (shared_down: along its rows).
#pragma once

#include <cstddef>

#include "kernels/forest/leaf_forest.h"

namespace espalier {

class LeafPacker {
   public:
    // `shape` says sizes, activation, tie rule and row types; its pointers are not used. `memory`:
    // bytes(shape) bytes, 64-byte aligned, that live as long as the forest. leaves_lie_packed: packed_leaves
    // will be called in place of up and down.
    LeafPacker(const LeafForest& shape, std::byte* memory, bool leaves_lie_packed = false);
    static size_t bytes(const LeafForest& shape, bool leaves_lie_packed = false);

    // 8-bit weights of the leaves as the forest has them (LeafNeurons), with their scales: used where they
    // lie.
    void packed_leaves(const uint32_t* up, const float* up_scale, const uint32_t* down,
                       const float* down_scale);

    // weight: [trees, 2^depth - 1, hidden], threshold: [trees, 2^depth - 1]. Float32 nodes are not copied:
    // both must live as long as the forest.
    void nodes(const float* weight, const float* threshold);
    void up(const float* weight);         // [groups, leaf_width, hidden]
    void gate(const float* weight);       // [groups, leaf_width, hidden], of a gated forest
    void up_bias(const float* bias);      // [groups, leaf_width]
    void down(const float* weight);       // [groups, leaf_width, hidden]
    void output_bias(const float* bias);  // [groups, hidden]
    // The shared neurons, as a dense part stores them: its second layer is [outputs, inputs].
    void shared_up(const float* weight);         // [shared_width, hidden]
    void shared_up_bias(const float* bias);      // [shared_width]
    void shared_down(const float* weight);       // [hidden, shared_width]
    void shared_output_bias(const float* bias);  // [hidden]

    const LeafForest& forest() const { return forest_; }

   private:
    // Where the packed weights lie; null where there are none.
    struct Neurons {
        uint32_t *up = nullptr, *down = nullptr;
        float *up_bias = nullptr, *up_scale = nullptr, *down_scale = nullptr;
        LeafNeurons packed() const { return {up, down, up_bias, up_scale, down_scale}; }
    };
    struct Places {
        Neurons leaf, shared, gate;
        uint16_t* nodes = nullptr;
        float* bias = nullptr;
        size_t bytes = 0;
    };
    void pack_groups(const float* weight, Neurons& neurons) const;
    static Places lay_out(const LeafForest& shape, std::byte* memory, bool leaves_lie_packed);

    LeafForest forest_;
    Places places_;
};

}  // namespace espalier
