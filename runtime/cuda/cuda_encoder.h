// The block loop on a CUDA device. A context's own: its stream, its hidden states, and, for calls of one
// shape after another, the recorded launches of all blocks as one graph.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/cuda/attention.h"
#include "runtime/cuda/cuda_cache.h"
#include "runtime/cuda/cuda_graph.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/device_encoder.h"

namespace espalier {

class CudaEncoder final : public DeviceEncoder {
   public:
    CudaEncoder(const Model& model, int number, const WorkspaceShape& shape, const int* cancel);
    ~CudaEncoder() override;

    const char* name() const override { return weights_->device().name; }
    void run(const Batch& batch, const Observers& observers) override;
    void hidden(float* x) override;
    void pooled(Pooling pooling, float* target) override;
    void routes(std::span<const ForestRoutes> target) override;
    void use_cache(const KeyValueCache& sequence) override;
    uint64_t cache_bytes() const override { return cache_ ? cache_->bytes() : 0; }
    const float* logits(size_t first, size_t rows) override;

    // For benchmarks, which time on the device: the work of run() without what is copied to and fro. The
    // batch must be that of the run before.
    void run_again(const Batch& batch);
    cudaStream_t stream() const { return stream_; }

   private:
    // What the block loop calls (runtime/block_loop.h).
    friend class BlockLoop;
    void check_cancelled() const;
    void embed(const Batch& batch);
    void show_layer(const Observers& observers, size_t layer);
    void show_ffn_input(const Observers& observers, size_t b);
    const cuda::Norm& attention_norm(size_t b) const { return weights_->blocks()[b].attention_norm; }
    const cuda::Norm& ffn_norm(size_t b) const { return weights_->blocks()[b].ffn_norm; }
    void normalise_input(const cuda::Norm& norm);
    void attention(size_t b, const Batch& batch);
    bool run_part(size_t b, size_t p, bool written);
    void clear_output();
    void add_output(const cuda::Norm& norm);
    void start_beside();
    void go_back_beside();
    void collect_beside();
    void end_beside();
    void final_norm();

    bool is_bf16() const { return model_.precision() == TensorType::bf16; }
    bool is_8bit() const { return model_.precision() == TensorType::s8; }
    bool attends_in_bytes(const BlockSpec& block) const {
        return is_8bit() && cuda::fits_byte_attention(block.head_dimension);
    }
    bool is_pre() const { return model_.spec().norm_placement == NormPlacement::pre; }
    // One token's launches follow each other so closely that they had better overlap.
    bool begins_early() const { return tokens_ == 1 && weights_->device().begins_early(); }
    size_t row_floats() const { return tokens_ * model_.spec().hidden; }
    // What layers read: float32 or, in models of fewer bits, the same rounded.
    const float* input() const { return is_pre() ? normed_ : x_; }
    const void* layer_input() const {
        return is_bf16() || is_8bit() ? rounded_ : static_cast<const void*>(input());
    }
    void round_input(const float* x, bool rotated = true);
    bool is_first_neurons(size_t b, size_t p) const;
    void normalise(const cuda::Norm& norm, const cuda::NormCall& call, bool is_read);
    void settle();
    void dense(const CudaDense& layer, const void* x, const float* x_scale, void* y);
    void dense(const CudaDense& layer, const void* x, void* y, size_t rows);
    void mix_sequences(const BlockSpec& spec);
    void dense_part(const CudaPart& part, bool written);
    const void* gated(const CudaPart& part);
    void make_logits(size_t first, size_t rows);
    void allocate();
    void stage(const Batch& batch);
    void launch(const Batch& batch, const Observers& observers);
    void show(const Observers::Hook& hook, size_t layer, const float* x);
    void copy_back(void* target, const void* from, size_t bytes);

    // The launches of all blocks for batches of one shape; seen: of decoders.
    struct Shape {
        size_t tokens = 0, sequences = 0, longest = 0, seen = 0;
        bool operator==(const Shape&) const = default;
    };

    const Model& model_;
    WorkspaceShape most_;
    const int* cancel_;
    std::shared_ptr<const CudaModel> weights_;
    cudaStream_t stream_ = nullptr;
    cuda::DenseRunner dense_;
    cuda::Buffer memory_;
    std::optional<CudaGraph> graph_;
    Shape recorded_, last_;  // of the graph, of the run before
    bool narrow_y_ = false;  // y holds bfloat16 values
    // Pre-norm: y is still to be added to x, which the next norm does on its way.
    bool y_is_due_ = false;
    std::optional<CudaCache> cache_;  // a decoder's
    size_t seen_ = 0;                 // a bound of its sequence's length, with the tokens of the run
    cuda::HostBuffer host_logits_;    // [decoder_logit_rows, vocabulary]
    size_t logits_first_ = 0, logits_rows_ = 0;  // of the last run: what is in there
    size_t tokens_ = 0, sequences_ = 0, longest_ = 0;

    // All in memory_. T = most tokens, S = most sequences.
    int32_t *ids_ = nullptr, *places_ = nullptr, *types_ = nullptr;         // [T]
    uint32_t* offsets_ = nullptr;                                           // [S + 1]
    float *x_ = nullptr, *normed_ = nullptr, *y_ = nullptr;                 // [T, hidden]
    float *extra_ = nullptr, *beside_x_ = nullptr, *beside_sum_ = nullptr;  // [T, hidden] where needed
    void *rounded_ = nullptr, *qkv_ = nullptr, *mix_ = nullptr, *inner_ = nullptr, *gated_ = nullptr;
    void* attention_ = nullptr;      // scratch of 8-bit attention
    float* logits_ = nullptr;        // [decoder_logit_rows, vocabulary rounded up], a decoder's
    int8_t* inner_bytes_ = nullptr;  // of 8-bit models, with
    float *rounded_scale_ = nullptr, *inner_scale_ = nullptr;  // [T]
    float* pooled_ = nullptr;                                  // [S, hidden]
    std::vector<ForestRoutes> routes_;
    cuda::ForestScratch forest_;
    std::vector<int32_t> staged_;  // ids, places, types; offsets
};

}  // namespace espalier
