// The blocks on another device than the CPU: weights, hidden states, routes and a decoder's keys and values
// live there, and what a caller asks for comes back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "runtime/batch.h"
#include "runtime/workspace.h"

namespace espalier {

class KeyValueCache;

class DeviceEncoder {
   public:
    DeviceEncoder() = default;
    DeviceEncoder(const DeviceEncoder&) = delete;
    DeviceEncoder& operator=(const DeviceEncoder&) = delete;
    virtual ~DeviceEncoder() = default;

    // The card's own name.
    virtual const char* name() const = 0;
    // All blocks; returns when they are done. Throws Error(cancelled), and what the device answers.
    virtual void run(const Batch& batch, const Observers& observers) = 0;
    // Of the last run: hidden states [tokens, hidden]; pooled ones [sequences, hidden]; and where its tokens
    // went, by forest.
    virtual void hidden(float* x) = 0;
    virtual void pooled(Pooling pooling, float* target) = 0;
    virtual void routes(std::span<const ForestRoutes> target) = 0;

    // Of decoders, and what Encoder::use_cache is: from now on a batch is the next tokens of the sequence,
    // whose length and tables of angles are `sequence`'s; keys and values are the device's own, for its
    // window.
    virtual void use_cache(const KeyValueCache& sequence) = 0;
    virtual uint64_t cache_bytes() const = 0;
    // Of tokens `first` .. of the last run, at most decoder_logit_rows: [rows, vocabulary], here, until the
    // next call.
    virtual const float* logits(size_t first, size_t rows) = 0;
};

// What --device and the C API name: "cpu", "cuda", "cuda:N". Throws Error(invalid_argument).
struct DeviceName {
    bool is_cuda = false;
    int number = 0;
};
DeviceName device_named(std::string_view name);

// False in a build without CUDA.
bool cuda_compiled_in() noexcept;
// Throws Error: unsupported where this build has no CUDA, where there is no device, driver or code for the
// device, and for what does not run there (docs/cuda.md); out_of_memory.
std::unique_ptr<DeviceEncoder> make_cuda_encoder(const Model& model, int number, const WorkspaceShape& shape,
                                                 const int* cancel);

}  // namespace espalier
