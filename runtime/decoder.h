// A decoder over one context: a sequence that grows token by token, and the logits of what comes next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/arena.h"
#include "runtime/device_encoder.h"
#include "runtime/encoder.h"
#include "runtime/kv_cache.h"
#include "runtime/sampler.h"
#include "runtime/tokenizer/bpe.h"

namespace espalier {

// Tokens of a prompt that go through the blocks together, here and on a device.
inline constexpr size_t decoder_chunk = 128, device_chunk = 2048;
// Tokens whose logits are made together: a vocabulary may be wide.
inline constexpr size_t decoder_logit_rows = 16;

class Decoder {
   public:
    // The arena may only count: then nothing but the sizes is right.
    Decoder(Arena& arena, const Model& model, size_t window, int threads, bool on_device);
    // blocks: of this model and these threads; x: [decoder_chunk, hidden], padded for the dense backend.
    // device: where blocks run instead, for device_chunk tokens or the window's; or null.
    void attach(Encoder& blocks, DeviceEncoder* device, float* x, const Observers& observers);

    const Model& model() const { return model_; }
    uint64_t cache_bytes() const {
        return device_ != nullptr ? device_->cache_bytes() : KeyValueCache::bytes(model_, window());
    }
    size_t length() const { return cache_.length(); }
    size_t window() const { return cache_.window(); }
    // [window] for the ids of a prompt; [vocabulary] for a sampler.
    std::span<int32_t> prompt() { return {ids_, window()}; }
    std::span<Sampler::Candidate> candidates() { return {candidates_, model_.spec().vocabulary}; }
    BpeScratch& tokenizer_scratch() { return tokenizer_scratch_; }

    void clear() { cache_.clear(); }
    // The sequence grows by `ids`, at least one. The logits of the token behind the last, [vocabulary], until
    // the next call. Throws Error(too_long | invalid_argument) before anything changes; where a pass fails
    // (cancelled) the sequence is empty.
    std::span<const float> append(std::span<const int32_t> ids);
    // The sequence becomes `ids`. The sum of -log p(ids[i] | ids[0 .. i)) over all but the first.
    double loss(std::span<const int32_t> ids);

   private:
    void check(std::span<const int32_t> ids, size_t before) const;
    size_t chunk() const;
    void pass(std::span<const int32_t> ids);
    const float* logits(size_t first, size_t rows);

    const Model& model_;
    KeyValueCache cache_;
    Encoder* blocks_ = nullptr;
    DeviceEncoder* device_ = nullptr;
    const Observers* observers_ = nullptr;
    int threads_;
    float* x_ = nullptr;            // hidden states of the last pass; what follows too is not a device's
    float* rows_ = nullptr;         // [R, hidden] those that logits are asked for
    std::byte* rounded_ = nullptr;  // the same in the model's precision, where it is not float32
    float* scales_ = nullptr;       // [R], where it is 8-bit
    float* logits_ = nullptr;       // [R, vocabulary]
    int32_t* ids_ = nullptr;
    Sampler::Candidate* candidates_ = nullptr;
    BpeScratch tokenizer_scratch_;
};

}  // namespace espalier
