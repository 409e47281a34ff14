// A context: the working memory of one call at a time on one model, and the calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <span>
#include <vector>

#include "runtime/arena.h"
#include "runtime/model.h"

namespace espalier {

struct ContextOptions {
    int threads = 1;
    uint32_t max_tokens = 0;     // of one call; 0: the model's limit for one sequence
    uint32_t max_sequences = 0;  // of one call; 0: 64, or max_tokens if that is less
    std::span<std::byte>
        arena;  // the caller's, at a multiple of 64; empty: allocated from the model's memory
    const int* cancel = nullptr;
};

// Sequences packed end to end; see espalier_batch.
struct Batch {
    std::span<const int32_t> ids;
    std::span<const uint8_t> types;     // empty: all 0
    std::span<const uint32_t> offsets;  // sequences + 1

    size_t sequences() const { return offsets.size() - 1; }
    size_t tokens() const { return ids.size(); }
    size_t length(size_t s) const { return offsets[s + 1] - offsets[s]; }
};

// The buffers of a call, all in the arena. R = rows for max_tokens, padded for the dense backend.
struct Workspace {
    float* x = nullptr;       // [R, hidden] hidden states
    float* normed = nullptr;  // [R, hidden] pre-norm models only
    float* y = nullptr;       // [R, hidden] what a sublayer adds
    float* extra = nullptr;   // [R, hidden] blocks with several dense parts only
    std::byte* qkv =
        nullptr;  // [R, widest qkv] float32, or bfloat16 in blocks with narrow attention, and 256 bytes
    float* mix = nullptr;  // [R, widest query] attention's output
    // A block of tokens of a dense part: [B, widest dense part]; float32, in bf16 models bf16.
    std::byte* inner = nullptr;
    // What layers read, rounded to the model's precision, and its scales; not in float32 models.
    std::byte *rounded = nullptr, *inner_rounded = nullptr;  // [R, hidden or widest query]; as inner, s8
    float *rounded_scale = nullptr, *inner_rounded_scale = nullptr;  // [R]; [B]; s8 only
    float* pooled = nullptr;                           // [R', hidden], R' = rows for max_sequences
    float *head_inner = nullptr, *head_out = nullptr;  // [R', …]
    std::byte* thread_scratch = nullptr;               // [threads, thread_scratch_bytes]
    size_t thread_scratch_bytes = 0;
    uint32_t* slice_offsets = nullptr;  // [max_sequences + 1]
    int32_t* ids = nullptr;             // [model's limit] of a text
    uint8_t* types = nullptr;           // [model's limit]
};

class Context {
   public:
    // Tokens of a dense part that go through both its layers before the next ones: what lies between the two
    // stays in the caches (1.5 MiB at MiniLM's 1536 float32).
    static constexpr size_t inner_tokens = 256;

    // Throws Error. The model must outlive the context.
    Context(const Model& model, const ContextOptions& options);
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    ~Context();

    static size_t arena_bytes(const Model& model, const ContextOptions& options);

    const Model& model() const { return model_; }
    size_t max_tokens() const { return max_tokens_; }
    size_t max_sequences() const { return max_sequences_; }
    int threads() const { return threads_; }
    DenseRunner& dense() { return *dense_; }

    // Last hidden states [tokens, hidden], in the arena until the next call.
    std::span<const float> encode(const Batch& batch);
    // [sequences, hidden]; [sequences, outputs].
    std::span<const float> embed(const Batch& batch);
    std::span<const float> score(const Batch& batch, uint32_t head);

    // A text's tokens, at most the model's and the context's limit, in the arena until the next call.
    struct Tokens {
        std::span<const int32_t> ids;
        std::span<const uint8_t> types;
        bool truncated;
        // The text as a batch of one sequence; valid as long as this object.
        Batch batch() const { return {ids, types, offsets}; }

        std::array<uint32_t, 2> offsets;
    };
    Tokens tokenize(std::string_view text, std::optional<std::string_view> pair, bool plain_special = false);
    size_t tokenize(std::string_view text, std::optional<std::string_view> pair, bool plain_special,
                    std::span<int32_t> ids, std::span<uint8_t> types, bool& truncated);

    // Of the last call, by forest: [tokens, trees].
    ForestRoutes routes(size_t forest) const { return routes_[forest]; }
    size_t tokens() const { return tokens_; }

    // Observers, called on the calling thread. on_layer: hidden states after the embedding (0) and after each
    // block (1 ..). on_ffn_input: what the parts of a block read, before they run.
    using Observer = void (*)(void* user, uint32_t layer, const float* values, size_t tokens);
    void on_layer(Observer observer, void* user) { layer_observer_ = {observer, user}; }
    void on_ffn_input(Observer observer, void* user) { ffn_observer_ = {observer, user}; }

   private:
    struct Hook {
        Observer observer = nullptr;
        void* user = nullptr;
        void operator()(size_t layer, const float* values, size_t tokens) const {
            if (observer != nullptr) observer(user, static_cast<uint32_t>(layer), values, tokens);
        }
    };

    void check(const Batch& batch) const;
    void check_cancelled() const;
    // encoder.cpp
    void run(const Batch& batch);
    void run_slice(const Batch& slice);
    size_t slice_tokens() const;
    void add_embeddings(const Batch& batch);
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
    void attention(const PreparedBlock& block, const Batch& batch, const float* input);
    void feed_forward(const PreparedBlock& block, const float* input);
    void forest(const PreparedPart& part, const Rows& input, bool accumulate);
    void residual_norm(const NormWeights& norm);
    void normalise(const NormWeights& norm, const float* x, const float* residual, float* y);
    void pool(const Batch& batch, Pooling pooling);

    const Model& model_;
    int threads_;
    size_t max_tokens_, max_sequences_;
    const int* cancel_;
    Workspace work_;
    std::pmr::vector<ForestRoutes> routes_;
    std::unique_ptr<DenseRunner> dense_;
    TokenizerScratch tokenizer_scratch_;
    Hook layer_observer_, ffn_observer_;
    size_t tokens_ = 0;   // of the slice that runs; after a call of all of them
    size_t base_ = 0;     // the slice's first token
    float* x_ = nullptr;  // its hidden states
    void* owned_arena_ = nullptr;
    size_t arena_bytes_ = 0;
};

// The label that a head's scores favour, the first of equals, and its softmax.
struct Choice {
    uint32_t index = 0;
    float probability = 0;
};
Choice most_likely(std::span<const float> scores);

}  // namespace espalier
