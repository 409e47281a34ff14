// One forest with random weights, its routes and its scratch.
#pragma once

#include "apps/layer_forest.h"

namespace espalier {

class ForestPart {
   public:
    // shared: neurons of a dense part that a leaf forest computes beside its leaves.
    ForestPart(size_t hidden, const PartSpec& spec, size_t shared, TensorType precision,
               const KernelTable& kernels, int threads, size_t most_tokens, const RandomRows& random,
               uint64_t matrix, std::pmr::memory_resource* memory);
    ForestPart(const ForestPart&) = delete;
    ForestPart& operator=(const ForestPart&) = delete;
    ~ForestPart() = default;

    void run(const Tokens& tokens, float* y, bool accumulate);
    // One token by the scalar kernel; adds to y. Fills leaf and margin: [trees].
    void run_scalar(const Tokens& token, float* y, uint32_t* leaf, float* margin) const;

    size_t trees() const { return spec_.trees; }
    const uint32_t* leaves() const { return leaf_.data(); }
    const float* margins() const { return margin_.data(); }
    size_t distinct_leaves() const;
    TouchedWeights touched(size_t second_level_bytes) const;
    size_t weight_bytes() const { return weights_.bytes(); }
    std::string description() const;

   private:
    void build_neuron(const RandomRows& random, uint64_t matrix, std::pmr::memory_resource* memory);
    void build_leaf(size_t shared, const RandomRows& random, uint64_t matrix,
                    std::pmr::memory_resource* memory);
    void call(const KernelTable& kernels, const ForestCall& call) const;
    size_t scratch(size_t tokens) const;

    size_t hidden_;
    PartSpec spec_;
    TensorType precision_;
    const KernelTable& kernels_;
    int threads_;
    HugeBlock weights_, scratch_;
    std::vector<float> thresholds_;
    NeuronForest neuron_;
    LeafForest leaf_forest_;
    size_t scratch_bytes_ = 0, tokens_ = 0;
    std::vector<uint32_t> leaf_;
    std::vector<float> margin_;
};

}  // namespace espalier
