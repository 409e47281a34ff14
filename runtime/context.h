// A context: the working memory of one call at a time on one model, and the calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <optional>
#include <span>
#include <vector>

#include "runtime/decoder.h"
#include "runtime/device_encoder.h"
#include "runtime/encoder.h"
#include "runtime/workspace.h"

namespace espalier {

struct ContextOptions {
    int threads = 1;
    uint32_t max_tokens = 0;     // of one call; 0: the model's limit for one sequence
    uint32_t max_sequences = 0;  // of one call; 0: 64, or max_tokens if that is less
    std::span<std::byte>
        arena;  // the caller's, at a multiple of 64; empty: allocated from the model's memory
    const int* cancel = nullptr;
    std::string_view device;  // where blocks run: cpu (also empty), cuda or cuda:N
};

class Context {
   public:
    // Throws Error. The model must outlive the context.
    Context(const Model& model, const ContextOptions& options);
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    static size_t arena_bytes(const Model& model, const ContextOptions& options);

    const Model& model() const { return model_; }
    size_t max_tokens() const { return shape_.max_tokens; }
    size_t max_sequences() const { return shape_.max_sequences; }
    int threads() const { return shape_.threads; }
    DenseRunner& dense() { return whole_->dense(); }
    // The card that blocks run on; null: the CPU.
    const char* device_name() const { return device_ ? device_->name() : nullptr; }

    // Last hidden states [tokens, hidden], in the arena until the next call.
    std::span<const float> encode(const Batch& batch);
    // [sequences, hidden]; [sequences, outputs].
    std::span<const float> embed(const Batch& batch);
    std::span<const float> score(const Batch& batch, uint32_t head);

    // Throws Error(unsupported) where the model is an encoder; those above, where it is a decoder.
    Decoder& decoder();

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
    ForestRoutes routes(size_t forest) const;
    size_t tokens() const { return tokens_; }

    // Called on the calling thread; see Observers.
    using Observer = Observers::Function;
    void on_layer(Observer observer, void* user) { observers_.layer = {observer, user}; }
    void on_ffn_input(Observer observer, void* user) { observers_.ffn_input = {observer, user}; }

    // Later calls run without this block, and without the attention of that one; Observers::none: with all.
    void leave_out(size_t block, size_t attention) {
        observers_.without_block = block;
        observers_.without_attention = attention;
    }

   private:
    void check(const Batch& batch) const;
    void refuse_decoders() const;
    void pass(const Batch& batch);
    void run(const Batch& batch);
    size_t cut_into_slices(const Batch& batch, size_t most);
    size_t cut_for_lanes(const Batch& batch);
    void run_slice(Encoder& encoder, const Batch& batch, size_t index);
    void run_lanes(const Batch& batch, size_t slices);
    void pool(const Batch& batch, Pooling pooling);

    const Model& model_;
    WorkspaceShape shape_;
    const int* cancel_;
    ArenaMemory own_arena_;  // where the caller gave none
    Workspace work_;
    std::pmr::vector<ForestRoutes> routes_;
    std::optional<Encoder> whole_;           // all threads
    std::pmr::vector<Encoder> lanes_;        // one a thread; none with one thread
    std::unique_ptr<DeviceEncoder> device_;  // null: the CPU
    mutable bool routes_are_away_ = false;   // on the device, not yet copied
    TokenizerScratch tokenizer_scratch_;
    Observers observers_;
    std::optional<Decoder> decoder_;
    size_t tokens_ = 0;  // of the last call
};

// The label that a head's scores favour, the first of equals, and its softmax.
struct Choice {
    uint32_t index = 0;
    float probability = 0;
};
Choice most_likely(std::span<const float> scores);

}  // namespace espalier
