// A model's tensors turned into what the kernels take: rounded to the precision of the arithmetic, packed for
// the dense backend, and for leaves. A tensor that a kernel can use as it stands is used in the mapped file,
// without a copy.
#pragma once

#include <memory>
#include <memory_resource>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/dense/dense.h"
#include "model_format/reader.h"
#include "runtime/memory.h"

namespace espalier {

// Rows that stay as stored and are widened one at a time, when a token asks for them.
struct EmbeddingTable {
    const TensorView* tensor = nullptr;
    const float* scales = nullptr;  // one a row, or null

    // target: [row length], written by kernels.widen or added to by kernels.add_widened.
    void row(WidenKernel widen, size_t index, float* target) const {
        widen(tensor->type, begin(index), scales != nullptr ? scales[index] : 1.0F, target,
              tensor->row_length());
    }
    // Asks the memory for a row: those of a text lie scattered.
    void fetch(size_t index) const {
        const std::byte* row = begin(index);
        for (size_t at = 0; at < row_bytes(); at += 64)
            __builtin_prefetch(row + at);
    }

   private:
    size_t row_bytes() const { return tensor->row_length() * bytes_of(tensor->type); }
    const std::byte* begin(size_t index) const { return tensor->bytes.data() + index * row_bytes(); }
};

struct PreparedPart {
    const PartSpec* spec = nullptr;
    std::unique_ptr<DenseLayer> up, down;  // dense; null where a leaf forest of the block runs its neurons
    std::unique_ptr<DenseLayer> gate;      // of a gated dense part, with its activation; up has none then
    LeafForest leaf_forest;
    NeuronForest neuron_forest;
    size_t forest = 0;  // its number among the model's forests
};

struct PreparedBlock {
    const BlockSpec* spec = nullptr;
    AttentionShape attention;
    // Takes queries, keys and values in bfloat16; null: they are float32.
    NarrowAttentionKernel narrow_attention = nullptr;
    std::unique_ptr<DenseLayer> qkv, attention_out;
    size_t cache = 0;  // its number among the blocks with attention
    NormWeights attention_norm, ffn_norm;
    std::vector<PreparedPart> parts;

    size_t qkv_row_bytes() const {
        return attention.row_stride() * (narrow_attention != nullptr ? sizeof(uint16_t) : sizeof(float));
    }
};

struct PreparedHead {
    const HeadSpec* spec = nullptr;
    std::unique_ptr<DenseLayer> dense, out;  // dense: null where the head has one layer
};

struct PreparedModel {
    explicit PreparedModel(std::pmr::memory_resource* memory) : weights(memory) {}
    EmbeddingTable words, positions, types;  // positions, types: without tensor where there are none
    NormWeights embedding_norm, final_norm;  // without weight where there are none
    std::vector<PreparedBlock> blocks;
    std::vector<PreparedHead> heads;
    std::unique_ptr<DenseLayer> output;  // a decoder's: hidden states to logits, in float32
    // Of projections, feed-forward parts and what they read: f32, bf16 or s8. Norms, softmax, the walks of
    // leaf forests, heads and embeddings are float32 in every precision.
    TensorType precision = TensorType::f32;
    size_t forests = 0;
    size_t dense_bytes = 0;
    WeightStore weights;
};

// memory: for what is needed meanwhile; what stays lies where the model's weights do.
// Throws Error(unsupported) for what the file may hold and this version does not run, out_of_memory,
// internal.
void prepare(const ModelFile& file, const KernelTable& kernels, const DenseBackend& backend,
             TensorType precision, std::pmr::memory_resource* memory, PreparedModel& model);

// The arithmetic that a file's own numbers ask for: that of its narrowest weights; float32 for f16.
TensorType stored_precision(const ModelFile& file);

}  // namespace espalier
