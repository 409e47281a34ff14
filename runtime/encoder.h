// The block loop on the CPU: a slice of a batch through all blocks, on the threads it is given. What a pass
// leaves behind is a slice's hidden states and its tokens' routes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "runtime/batch.h"
#include "runtime/model.h"
#include "runtime/workspace.h"

namespace espalier {

class KeyValueCache;

class Encoder {
   public:
    // buffers: for these threads; routes: of the whole batch, one a forest. Both must outlive the encoder.
    Encoder(const Model& model, int threads, const PassBuffers& buffers, std::span<const ForestRoutes> routes,
            const int* cancel);

    // base: the slice's first token within the batch. x: where its hidden states go, [tokens, hidden]. Throws
    // Error(cancelled), and what dense layers throw.
    void run(const Batch& slice, size_t base, float* x, const Observers& observers);
    DenseRunner& dense() { return *dense_; }
    // From now on a slice is the next tokens of the cache's sequence, and attention is causal.
    void use_cache(KeyValueCache& cache) { cache_ = &cache; }

   private:
    // What the block loop calls.
    friend class BlockLoop;
    void check_cancelled() const;
    void embed(const Batch& batch);
    void show_layer(const Observers& observers, size_t layer) const { observers.layer(layer, x_, tokens_); }
    void show_ffn_input(const Observers& observers, size_t b) const {
        observers.ffn_input(b, input(), tokens_);
    }
    const NormWeights& attention_norm(size_t b) const { return model_.prepared().blocks[b].attention_norm; }
    const NormWeights& ffn_norm(size_t b) const { return model_.prepared().blocks[b].ffn_norm; }
    void normalise_input(const NormWeights& norm);
    void attention(size_t b, const Batch& batch);
    bool run_part(size_t b, size_t p, bool written);
    void clear_output();
    void add_output(const NormWeights& norm);
    void start_beside();
    void go_back_beside();
    void collect_beside();
    void end_beside();
    void final_norm();

    // What the sublayer reads.
    const float* input() const;
    // Rows in the model's precision.
    struct Rows {
        const void* values = nullptr;
        const float* scale = nullptr;  // 8-bit: one a row
        const float* exact = nullptr;  // before they were rounded; null if they were not
    };
    Rows input_rows(const float* normed) const;
    // rotated: 8-bit rows are turned first, as the weights that they meet (kernels/quantize/rotate.h).
    Rows rounded(const float* x, size_t rows, size_t columns, std::byte* target, float* scale,
                 bool rotated = true);
    void dense_part(const PreparedPart& part, const Rows& input, float* y);
    Rows gated(const PreparedPart& part, const std::byte* x, const float* x_scale, size_t count);
    void mix_sequences(const PreparedBlock& block, const Batch& batch);
    ForestCall forest_call(const PreparedPart& part, const Rows& input, bool accumulate, size_t begin,
                           size_t end, int thread) const;
    void forest(const PreparedPart& part, const Rows& input, bool accumulate);
    void normalise(const NormWeights& norm, const float* x, const float* residual, float* y);

    const Model& model_;
    int threads_;
    const int* cancel_;
    KeyValueCache* cache_ = nullptr;  // a decoder's; an encoder has none
    PassBuffers work_;
    std::span<const ForestRoutes> routes_;
    std::unique_ptr<DenseRunner> dense_;
    size_t tokens_ = 0;   // of the slice that runs
    size_t base_ = 0;     // its first token
    float* x_ = nullptr;  // its hidden states
};

}  // namespace espalier
