// The buffers of a context, all in one arena: what a batch needs, and what one pass through the blocks needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/forest/forest.h"
#include "runtime/arena.h"
#include "runtime/model.h"

namespace espalier {

// What lies between the layers of one slice of a batch. R = rows for its tokens, padded for the dense
// backend.
struct PassBuffers {
    float* normed = nullptr;                           // [R, hidden] pre-norm models only
    float* y = nullptr;                                // [R, hidden] what a sublayer adds
    float* extra = nullptr;                            // [R, hidden] blocks with several dense parts only
    float *beside_x = nullptr, *beside_sum = nullptr;  // [R, hidden] models with parallel blocks only
    std::byte* qkv =
        nullptr;  // [R, widest qkv] float32, or bfloat16 in blocks with narrow attention, and 256 bytes
    float* mix = nullptr;  // [R, widest query] attention's output
    // A block of tokens of a dense part: [B, widest dense part]; float32, in bf16 models bf16.
    std::byte* inner = nullptr;
    float* gate = nullptr;  // [B, widest gated part]
    // What layers read, rounded to the model's precision, and its scales; not in float32 models.
    std::byte *rounded = nullptr, *inner_rounded = nullptr;          // [R, hidden or widest query]; as inner
    float *rounded_scale = nullptr, *inner_rounded_scale = nullptr;  // [R]; [B]; s8 only
    std::byte* thread_scratch = nullptr;                             // [threads, thread_scratch_bytes]
    size_t thread_scratch_bytes = 0;
    // How threads share a tree's leaves (leaf_split.h): [leaves of the widest tree], [threads].
    uint32_t *leaf_counts = nullptr, *leaf_ends = nullptr;
};

struct Workspace {
    float* x = nullptr;                                // [tokens, hidden] hidden states
    float* pooled = nullptr;                           // [R', hidden], R' = rows for max_sequences
    float *head_inner = nullptr, *head_out = nullptr;  // [R', …]
    uint32_t* slice_ends = nullptr;                    // [max_sequences] the sequence behind each slice
    uint32_t* slice_offsets = nullptr;  // [2 max_sequences] of the sequences of each slice, from 0
    uint32_t* loads = nullptr;          // [lanes]
    int32_t* ids = nullptr;             // [model's limit] of a text
    uint8_t* types = nullptr;           // [model's limit]
    // In the same place: one pass of all threads, or one of each thread (a lane).
    PassBuffers whole;
    std::byte* lanes = nullptr;
};

struct WorkspaceShape {
    size_t max_tokens = 0, max_sequences = 0;
    int threads = 1;
};

// Threads that take slices by themselves: all, where there can be a sequence for each; else none.
inline size_t lanes_of(const WorkspaceShape& shape) {
    const auto threads = static_cast<size_t>(shape.threads);
    return threads > 1 && shape.max_sequences >= threads ? threads : 0;
}

// What one lane gets of `tokens` at most; a batch that cannot be shared out so evenly is not shared out.
inline size_t most_lane_tokens(size_t tokens, size_t lanes) {
    return lanes > 0 ? tokens * 7 / (lanes * 6) : 0;
}

// Tokens of a dense part that go through both its layers before the next ones: what lies between the two
// stays in the caches (1.5 MiB at MiniLM's 1536 float32).
inline constexpr size_t inner_tokens = 256;

// Tokens of a slice of several sequences: queries, keys and values take a second-level cache of 1 MiB; at
// least 64, so that products stay efficient.
size_t slice_tokens(const Model& model);

// routes: one a forest, or none (while counting).
Workspace lay_out_workspace(Arena& arena, const Model& model, const WorkspaceShape& shape,
                            std::span<ForestRoutes> routes);
// Those of one lane.
PassBuffers lane_buffers(const Workspace& workspace, const Model& model, const WorkspaceShape& shape,
                         size_t lane);

}  // namespace espalier
