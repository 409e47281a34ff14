// One node's product and what a walk keeps, for every kernel that walks.
#pragma once

#include "kernels/cuda/forest.h"
#include "kernels/cuda/numbers.cuh"

namespace espalier::cuda {

// What the kernels of a walk read and write: Trees and ForestCall as a kernel's argument.
template <class T>
struct WalkArguments {
    const T* x;
    const T *nodes, *gates;
    const float* offset;
    const float *x_scale, *node_scale;  // of 8-bit rows
    float* activations;
    uint32_t* leaf;
    float* margin;
    uint32_t tokens, hidden, trees, levels;
    bool neurons, zero_goes_right, routes_on_gate;
    Activation activation;

    WalkArguments(const Trees& t, const void* from, const ForestCall& call)
        : x(static_cast<const T*>(from)),
          nodes(static_cast<const T*>(t.nodes)),
          gates(static_cast<const T*>(t.gates)),
          offset(t.offset),
          x_scale(call.x_scale),
          node_scale(t.scale),
          activations(call.scratch.activations),
          leaf(call.leaf),
          margin(call.margin),
          tokens(static_cast<uint32_t>(call.tokens)),
          hidden(static_cast<uint32_t>(sizeof(T) == 1 ? byte_row(t.hidden) : t.hidden)),
          trees(static_cast<uint32_t>(t.trees)),
          levels(static_cast<uint32_t>(t.levels)),
          neurons(t.neurons),
          zero_goes_right(t.zero_goes_right),
          routes_on_gate(t.routes_on_gate),
          activation(t.activation) {}

    __device__ uint32_t nodes_per_tree() const { return (1u << levels) - 1; }
    __device__ const T* row(uint32_t tree, uint32_t node) const {
        return nodes + (size_t{tree} * nodes_per_tree() + node) * hidden;
    }
    __device__ const T* gate_row(uint32_t tree, uint32_t node) const {
        return gates + (row(tree, node) - nodes);
    }
    // A product of stored values as one of the numbers that they stand for.
    __device__ float scaled(float product, uint32_t token, uint32_t tree, uint32_t node) const {
        if constexpr (sizeof(T) == 1) {
            return product * (node_scale[size_t{tree} * nodes_per_tree() + node] * x_scale[token]);
        } else {
            return product;
        }
    }
    __device__ float offset_of(uint32_t tree, uint32_t node) const {
        return offset != nullptr ? offset[size_t{tree} * nodes_per_tree() + node] : 0.0F;
    }
};

// x . row over a warp; all lanes get it.
template <class T>
__device__ inline float warp_product(const T* x, const T* row, uint32_t hidden) {
    constexpr uint32_t width = vector_values<T>;
    float sum = 0;
#pragma unroll 4
    for (uint32_t i = threadIdx.x % 32 * width; i < hidden; i += 32 * width) {
        const auto a = load_vector(x + i), b = load_vector(row + i);
#pragma unroll
        for (uint32_t j = 0; j < width; ++j)
            sum += a.values[j] * b.values[j];
    }
    return warp_sum(sum);
}

template <>
__device__ inline float warp_product(const int8_t* x, const int8_t* row, uint32_t hidden) {
    int32_t sum = 0;
#pragma unroll 4
    for (uint32_t i = threadIdx.x % 32 * 16; i < hidden; i += 32 * 16) {
        const int4 a = *reinterpret_cast<const int4*>(x + i), b = *reinterpret_cast<const int4*>(row + i);
        sum = __dp4a(a.x, b.x, __dp4a(a.y, b.y, __dp4a(a.z, b.z, __dp4a(a.w, b.w, sum))));
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    return static_cast<float>(sum);
}

// x of one token in a warp's registers, `vectors` vectors a lane. exact: that is the whole row, so that
// nothing is asked at run time.
template <class T, int vectors, bool exact>
struct KeptRow {
    static constexpr uint32_t width = vector_values<T>;
    static __device__ uint32_t hidden(const WalkArguments<T>& w) {
        return exact ? vectors * 32 * width : w.hidden;
    }

    Vector<T> v[vectors];

    __device__ void load(const T* x, uint32_t hidden) {
#pragma unroll
        for (int i = 0; i < vectors; ++i) {
            const uint32_t at = (i * 32 + threadIdx.x % 32) * width;
            if (exact || at < hidden) {
                v[i] = load_vector(x + at);
            } else {
#pragma unroll
                for (uint32_t j = 0; j < width; ++j)
                    v[i].values[j] = 0;
            }
        }
    }
    __device__ float product(const T* row, uint32_t hidden) const {
        float sums[4] = {};
#pragma unroll
        for (int i = 0; i < vectors; ++i) {
            const uint32_t at = (i * 32 + threadIdx.x % 32) * width;
            if (exact || at < hidden) {
                const auto r = load_vector(row + at);
#pragma unroll
                for (uint32_t j = 0; j < width; ++j)
                    sums[j % 4] += v[i].values[j] * r.values[j];
            }
        }
        return warp_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
};

// A walk in progress, the same in all lanes of a warp.
struct Walker {
    uint32_t node = 0;  // in heap order
    float margin = INFINITY;

    // Level `level` had test value z.
    template <class T>
    __device__ void step(const WalkArguments<T>& w, uint32_t level, float z) {
        if (w.neurons && level + 1 == w.levels) return;  // the last neuron chooses nothing
        margin = smaller_margin(margin, z);
        node = 2 * node + (goes_right(z, w.zero_goes_right) ? 2 : 1);
    }
    // Its leaf, or the place of the last node in its level.
    template <class T>
    __device__ uint32_t leaf(const WalkArguments<T>& w) const {
        const uint32_t depth = w.neurons ? w.levels - 1 : w.levels;
        return node - ((1u << depth) - 1);
    }
};

// What a neuron gives, rounded as its output row will be multiplied with. gate: of gated ones.
template <class T>
__device__ inline float neuron_value(const WalkArguments<T>& w, float z, float gate = 0) {
    const float value = w.gates != nullptr ? activated(w.activation, gate) * z : activated(w.activation, z);
    if constexpr (sizeof(T) == 1) {
        return value;  // rounded later, with the others of its path
    } else {
        return widened(narrowed<T>(value));
    }
}

}  // namespace espalier::cuda
