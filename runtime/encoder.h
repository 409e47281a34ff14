// The one block loop: a slice of a batch through all blocks, on the threads it is given. What a pass leaves
// behind is a slice's hidden states and its tokens' routes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "runtime/model.h"
#include "runtime/workspace.h"

namespace espalier {

// Sequences packed end to end; see espalier_batch.
struct Batch {
    std::span<const int32_t> ids;
    std::span<const uint8_t> types;     // empty: all 0
    std::span<const uint32_t> offsets;  // sequences + 1

    size_t sequences() const { return offsets.size() - 1; }
    size_t tokens() const { return ids.size(); }
    size_t length(size_t s) const { return offsets[s + 1] - offsets[s]; }
};

// Who looks on. layer: hidden states after the embedding (0) and after each block (1 ..). ffn_input: what the
// parts of a block read, before they run.
struct Observers {
    using Function = void (*)(void* user, uint32_t layer, const float* values, size_t tokens);
    struct Hook {
        Function function = nullptr;
        void* user = nullptr;
        void operator()(size_t layer, const float* values, size_t tokens) const {
            if (function != nullptr) function(user, static_cast<uint32_t>(layer), values, tokens);
        }
    };
    Hook layer, ffn_input;
    // What passes leave out, to see what it does: a block, and the attention of a block.
    static constexpr size_t none = SIZE_MAX;
    size_t without_block = none, without_attention = none;

    bool any() const { return layer.function != nullptr || ffn_input.function != nullptr; }
};

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
    void check_cancelled() const;
    void add_embeddings(const Batch& batch);
    void run_block(size_t b, const Batch& batch, const Observers& observers);
    bool is_beside(size_t b) const;
    void start_beside();
    void collect_beside();
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
    void attention(const PreparedBlock& block, const Batch& batch, const float* input);
    void mix_sequences(const PreparedBlock& block, const Batch& batch);
    void feed_forward(const PreparedBlock& block, const float* input);
    void forest(const PreparedPart& part, const Rows& input, bool accumulate);
    void residual_norm(const NormWeights& norm);
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
