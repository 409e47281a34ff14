#include "runtime/workspace.h"

#include <algorithm>

#include "kernels/dense/dense.h"

namespace espalier {
namespace {

// What decides the sizes of buffers, over all blocks.
struct Widest {
    size_t qkv = 0;  // bytes
    size_t query = 0, inner = 0, gated = 0, dense_parts = 0, leaves = 0, thread_scratch = 0;
    bool parallel = false;  // any block beside another
};

Widest widest_of(const Model& model, size_t tokens) {
    Widest widest;
    const ModelSpec& spec = model.spec();
    const size_t longest = std::min<size_t>(tokens, spec.max_positions);
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (block.qkv) {
            widest.qkv = std::max(widest.qkv, block.qkv_row_bytes());
            widest.query = std::max(widest.query, block.attention.query_width());
            widest.thread_scratch =
                std::max(widest.thread_scratch, attention_scratch(block.attention, longest) * sizeof(float));
        }
        widest.parallel = widest.parallel || block.spec->has(block_flag::parallel);
        size_t dense_parts = 0;
        for (const PreparedPart& part : block.parts) {
            switch (part.spec->kind) {
                case PartKind::dense:
                    if (part.up == nullptr) break;  // fused with a forest
                    widest.inner = std::max<size_t>(widest.inner, part.spec->width);
                    if (part.gate != nullptr) widest.gated = std::max<size_t>(widest.gated, part.spec->width);
                    ++dense_parts;
                    break;
                case PartKind::leaf_forest:
                    widest.thread_scratch =
                        std::max(widest.thread_scratch, scratch_bytes(part.leaf_forest, tokens));
                    widest.leaves = std::max(widest.leaves, part.leaf_forest.leaves());
                    break;
                case PartKind::neuron_forest:
                    widest.thread_scratch =
                        std::max(widest.thread_scratch, scratch_bytes(part.neuron_forest, tokens));
                    break;
            }
        }
        widest.dense_parts = std::max(widest.dense_parts, dense_parts);
    }
    return widest;
}

PassBuffers lay_out_pass(Arena& arena, const Model& model, size_t tokens, int threads) {
    const ModelSpec& spec = model.spec();
    const Widest widest = widest_of(model, tokens);
    const size_t rows = padded_rows(tokens), hidden = spec.hidden;
    PassBuffers b;
    b.y = arena.take<float>(rows * hidden);
    if (spec.norm_placement == NormPlacement::pre) b.normed = arena.take<float>(rows * hidden);
    if (widest.dense_parts > 1) b.extra = arena.take<float>(rows * hidden);
    if (widest.parallel) {
        b.beside_x = arena.take<float>(rows * hidden);
        b.beside_sum = arena.take<float>(rows * hidden);
    }
    // Attention loads whole vectors past the last value of the last row.
    if (widest.qkv > 0) b.qkv = arena.take<std::byte>(rows * widest.qkv + 256);
    if (widest.query > 0) b.mix = arena.take<float>(rows * widest.query);
    const TensorType precision = model.precision();
    const bool is_8bit = precision == TensorType::s8;
    if (widest.inner > 0) {
        const size_t inner_rows = padded_rows(std::min(tokens, inner_tokens));
        const bool narrow = precision == TensorType::bf16 && widest.gated == 0;
        b.inner = arena.take<std::byte>(inner_rows * widest.inner * (narrow ? 2 : 4));
        b.gate = arena.take<float>(inner_rows * widest.gated);
        const size_t rounded = is_8bit ? widest.inner : precision == TensorType::bf16 ? 2 * widest.gated : 0;
        b.inner_rounded = arena.take<std::byte>(inner_rows * rounded);
        b.inner_rounded_scale = arena.take<float>(is_8bit ? inner_rows : 0);
    }
    if (precision != TensorType::f32) {
        b.rounded = arena.take<std::byte>(rows * std::max(hidden, widest.query) * bytes_of(precision));
        b.rounded_scale = arena.take<float>(is_8bit ? rows : 0);
    }
    b.thread_scratch_bytes = round_up(widest.thread_scratch, 64);
    b.thread_scratch = arena.take<std::byte>(b.thread_scratch_bytes * static_cast<size_t>(threads));
    if (threads > 1) {
        b.leaf_counts = arena.take<uint32_t>(widest.leaves);
        b.leaf_ends = arena.take<uint32_t>(static_cast<size_t>(threads));
    }
    return b;
}

// A slice is one sequence, or several of no more than slice_tokens in all; and no more than a thread's share.
size_t lane_tokens(const Model& model, const WorkspaceShape& shape) {
    return std::min(most_lane_tokens(shape.max_tokens, lanes_of(shape)),
                    std::max<size_t>(slice_tokens(model), model.spec().max_positions));
}

size_t lane_bytes(const Model& model, const WorkspaceShape& shape) {
    Arena counting(nullptr);
    lay_out_pass(counting, model, lane_tokens(model, shape), 1);
    return counting.used();
}

}  // namespace

// By the bytes of queries, keys and values, what is widest between two layers. Few tokens stay in the near
// caches, many share what they load of a leaf: with trees of 32 leaves 512 tokens of MiniLM in float32 and
// 1,024 in the narrower types took least, 9, 4 and 3 % less at 32 x 32 than slices of 1 MiB; of 4.6 MiB up to
// 10 % more.
size_t slice_tokens(const Model& model) {
    constexpr size_t bytes = size_t{9} << 18;
    size_t widest = 1;
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (block.qkv) widest = std::max(widest, block.qkv_row_bytes());
    }
    return std::max<size_t>(64, bytes / widest);
}

Workspace lay_out_workspace(Arena& arena, const Model& model, const WorkspaceShape& shape,
                            std::span<ForestRoutes> routes) {
    const ModelSpec& spec = model.spec();
    const size_t pooled_rows = padded_rows(shape.max_sequences), hidden = spec.hidden;
    Workspace w;
    // Backends may read the rows of x behind a slice's own: up to 127 for padding, behind the last slice too.
    w.x = arena.take<float>((padded_rows(shape.max_tokens) + (shape.max_sequences > 1 ? 128 : 0)) * hidden);
    w.pooled = arena.take<float>(pooled_rows * hidden);
    size_t head_inner = 0, head_out = 0;
    for (const HeadSpec& head : spec.heads) {
        head_inner = std::max<size_t>(head_inner, head.dense_width);
        head_out = std::max<size_t>(head_out, head.outputs);
    }
    w.head_inner = arena.take<float>(pooled_rows * head_inner);
    w.head_out = arena.take<float>(pooled_rows * head_out);
    const size_t text = std::min<size_t>(shape.max_tokens, spec.tokenizer.max_tokens);
    w.slice_ends = arena.take<uint32_t>(shape.max_sequences);
    w.slice_offsets = arena.take<uint32_t>(2 * shape.max_sequences);
    w.loads = arena.take<uint32_t>(lanes_of(shape));
    w.ids = arena.take<int32_t>(text);
    w.types = arena.take<uint8_t>(text);
    for (const PreparedBlock& block : model.prepared().blocks) {
        for (const PreparedPart& part : block.parts) {
            if (!part.spec->is_forest()) continue;
            const ForestRoutes taken{arena.take<uint32_t>(shape.max_tokens * part.spec->trees),
                                     arena.take<float>(shape.max_tokens * part.spec->trees)};
            if (part.forest < routes.size()) routes[part.forest] = taken;
        }
    }
    const size_t before = arena.used();
    w.whole = lay_out_pass(arena, model, shape.max_tokens, shape.threads);
    w.lanes = w.x == nullptr ? nullptr : reinterpret_cast<std::byte*>(w.x) + before;
    const size_t all = lane_bytes(model, shape) * lanes_of(shape), taken = arena.used() - before;
    if (all > taken) arena.take<std::byte>(all - taken);
    return w;
}

PassBuffers lane_buffers(const Workspace& workspace, const Model& model, const WorkspaceShape& shape,
                         size_t lane) {
    Arena arena(workspace.lanes + lane_bytes(model, shape) * lane);
    return lay_out_pass(arena, model, lane_tokens(model, shape), 1);
}

}  // namespace espalier
