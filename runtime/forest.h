// One forest on tensors that are the caller's: what espalier/forest.h promises, with exceptions.
#pragma once

#include <memory_resource>

#include "kernels/cpu/kernel_table.h"
#include "model_format/spec.h"
#include "runtime/memory.h"

namespace espalier {

// Shapes as in espalier/forest.h. Null: zeros.
struct ForestWeights {
    const float* node_weight = nullptr;
    const float* node_bias = nullptr;
    const float *up = nullptr, *up_bias = nullptr;
    const float *down = nullptr, *output_bias = nullptr;
};

class Forest {
   public:
    // spec says kind, trees, depth, leaf width, activation and tie rule. Throws Error.
    Forest(const PartSpec& spec, size_t hidden, const ForestWeights& weights, const KernelTable& kernels,
           std::pmr::memory_resource* memory);

    size_t hidden() const { return hidden_; }
    const char* isa() const { return name_of(kernels_.isa); }
    std::pmr::memory_resource* memory() const { return store_.memory(); }

    size_t scratch_bytes(size_t tokens, int threads) const;
    // As ForestCall has it; routes may be null; scratch: scratch_bytes(tokens, threads).
    void run(const ForestCall& call, int threads) const;

   private:
    void use_neurons(const ForestWeights& weights);
    void pack_leaves(const ForestWeights& weights);
    size_t thread_scratch(size_t tokens) const;
    size_t route_bytes(size_t tokens) const;

    PartSpec spec_;
    size_t hidden_;
    const KernelTable& kernels_;
    WeightStore store_;
    NeuronForest neuron_;
    LeafForest leaf_;
};

}  // namespace espalier
