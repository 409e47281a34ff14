// A feed-forward layer of parts with random weights, run as the runtime runs it: dense parts through the
// dense backend, then forests, which add to what stands there.
#pragma once

#include <memory>
#include <span>

#include "apps/layer_dense.h"
#include "kernels/cpu/kernel_table.h"
#include "model_format/spec.h"

namespace espalier {

// Memory of one forest's weights, in the order in which calls meet it: nodes by level, then leaves. Says how
// much of it a call touched.
struct TouchedWeights {
    size_t rows = 0;        // distinct, in and out rows of a node counted apart
    size_t bytes = 0;       // of those rows
    size_t cold_bytes = 0;  // of those rows, without the levels that fit the second-level cache from the top
};

struct LayerCheck {
    size_t tokens = 0;
    double equal_leaves = 1;        // share
    double unexplained_leaves = 0;  // share of unequal ones whose margin is no hairline
    double max_difference = 0;      // over tokens with equal leaves, relative to the rms of y
};

class ForestPart;

class LayerFfn {
   public:
    LayerFfn(size_t hidden, std::span<const PartSpec> parts, TensorType precision, const KernelTable& kernels,
             const DenseBackend& backend, int threads, size_t most_tokens, const RandomRows& random,
             std::pmr::memory_resource* memory);
    ~LayerFfn();

    void plan(const Tokens& tokens, float* y);
    void run(const Tokens& tokens, float* y);

    // What the last run did.
    size_t distinct_leaves() const;  // summed over trees
    TouchedWeights touched(size_t second_level_bytes) const;
    // Leaf of each token of the last run in the first tree of the first forest; null without forest.
    const uint32_t* first_leaves(size_t& stride) const;
    // y against the scalar kernels on the same data: all tokens, or evenly chosen ones of many.
    LayerCheck check(const Tokens& tokens, const TokenBuffer& buffer, const float* y) const;

    size_t weight_bytes() const;
    bool has_forest() const { return !forests_.empty(); }
    std::string description() const;  // what computes what

    // Bytes of the weights, for a limit that is checked before anything is built.
    static size_t estimated_bytes(size_t hidden, std::span<const PartSpec> parts, TensorType precision);

   private:
    size_t hidden_;
    TensorType precision_;
    std::vector<std::unique_ptr<DenseFfn>> dense_;
    std::vector<std::unique_ptr<ForestPart>> forests_;
    HugeBlock extra_;
};

}  // namespace espalier
