#include "runtime/kv_cache.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.h"
#include "runtime/rotary.h"

namespace espalier {
namespace {

// Least heads of tokens that a thread is woken for.
constexpr size_t head_grain = 16;
// Tokens that are worth turning a head's keys for, which is as much work as a few tokens' scores.
constexpr size_t least_block = 6;

}  // namespace

KeyValueCache::KeyValueCache(Arena& arena, const Model& model, size_t window, int threads, bool on_device)
    : model_(model), window_(window), threads_(threads), layers_(model.memory()) {
    const auto& blocks = model.prepared().blocks;
    const bool attends =
        std::any_of(blocks.begin(), blocks.end(), [](const auto& b) { return b.qkv != nullptr; });
    if (attends && model.spec().positions == Positions::rotary) {
        angles_ = window * (model.spec().rope_dimensions / 2);
        cosines_ = arena.take<float>(angles_);
        sines_ = arena.take<float>(angles_);
    }
    if (!attends || on_device) return;
    for (const PreparedBlock& block : blocks) {
        if (!block.qkv) continue;
        const size_t floats = window * block.spec->kv_width();
        float* keys = arena.take<float>(floats);
        layers_.push_back({keys, arena.take<float>(floats)});
    }
    end_ = arena.take<float>(16);
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (!block.qkv) continue;
        const size_t d = block.attention.head_dimension;
        reads_past_rows_ = reads_past_rows_ || d % 16 != 0;
        scratch_floats_ = std::max(scratch_floats_, cached_attention_scratch(window, d));
    }
    scratch_ = arena.take<float>(scratch_floats_ * static_cast<size_t>(threads));
}

uint64_t KeyValueCache::bytes(const Model& model, size_t window) {
    uint64_t floats = 0;
    for (const BlockSpec& block : model.spec().blocks) {
        if (block.has(block_flag::attention)) floats += 2 * block.kv_width() * window;
    }
    return floats * sizeof(float);
}

void KeyValueCache::prepare() {
    // Kernels may read past a row, into the next head's or what is behind the last: finite, as they ask.
    if (reads_past_rows_) std::fill(layers_.front().keys, end_ + 16, 0.0F);
    if (cosines_ == nullptr) return;
    const size_t pairs = model_.spec().rope_dimensions / 2;
    for (size_t i = 0; i < pairs; ++i) {
        const double step = rotary_step(model_.spec(), i);
        for (size_t p = 0; p < window_; ++p) {
            cosines_[p * pairs + i] = static_cast<float>(std::cos(static_cast<double>(p) * step));
            sines_[p * pairs + i] = static_cast<float>(std::sin(static_cast<double>(p) * step));
        }
    }
}

// Which two components turn together: i and i + n/2, or 2i and 2i + 1. What is behind n stays.
void KeyValueCache::rotate(float* head, size_t position) const {
    const size_t pairs = model_.spec().rope_dimensions / 2;
    const bool halves = model_.spec().rope_pairing == RopePairing::halves;
    const size_t stride = halves ? 1 : 2, partner = halves ? pairs : 1;
    const float *cosine = cosines_ + position * pairs, *sine = sines_ + position * pairs;
    for (size_t i = 0; i < pairs; ++i) {
        float &a = head[i * stride], &b = head[i * stride + partner];
        const float turned = a * cosine[i] - b * sine[i];
        b = b * cosine[i] + a * sine[i];
        a = turned;
    }
}

void KeyValueCache::store(const PreparedBlock& block, float* qkv, size_t tokens) {
    const AttentionShape& shape = block.attention;
    const size_t d = shape.head_dimension;
    const Layer& layer = layers_[block.cache];
    for (size_t t = 0; t < tokens; ++t) {
        float* row = qkv + t * shape.row_stride();
        const size_t position = length_ + t;
        for (size_t h = 0; h < shape.heads + shape.kv_heads && cosines_ != nullptr; ++h)
            rotate(row + h * d, position);
        const float *keys = row + shape.heads * d, *values = keys + shape.kv_heads * d;
        for (size_t h = 0; h < shape.kv_heads; ++h) {
            const size_t place = (h * window_ + position) * d;
            std::copy_n(keys + h * d, d, layer.keys + place);
            std::copy_n(values + h * d, d, layer.values + place);
        }
    }
}

void KeyValueCache::attend(const PreparedBlock& block, float* qkv, size_t tokens, float* mix) {
    store(block, qkv, tokens);
    const AttentionShape& shape = block.attention;
    const Layer& layer = layers_[block.cache];
    const size_t d = shape.head_dimension, sharing = shape.heads / shape.kv_heads;
    if (tokens >= least_block) {
        parallel_for(threads_, shape.heads, 1, [&](size_t begin, size_t end, int thread) {
            for (size_t h = begin; h < end; ++h) {
                const size_t place = h / sharing * window_ * d;
                model_.kernels().cached_queries(
                    {layer.keys + place, layer.values + place, length_ + tokens, d},
                    {qkv + h * d, shape.row_stride(), tokens, mix + h * d, shape.query_width()}, shape.scale,
                    scratch_ + static_cast<size_t>(thread) * scratch_floats_);
            }
        });
        return;
    }
    parallel_for(threads_, tokens * shape.heads, head_grain, [&](size_t begin, size_t end, int thread) {
        float* scratch = scratch_ + static_cast<size_t>(thread) * scratch_floats_;
        for (size_t unit = begin; unit < end; ++unit) {
            const size_t t = unit / shape.heads, h = unit % shape.heads;
            const size_t place = h / sharing * window_ * d;
            const CachedHead seen{layer.keys + place, layer.values + place, length_ + t + 1, d};
            model_.kernels().cached_attention(seen, qkv + t * shape.row_stride() + h * d, shape.scale,
                                              mix + t * shape.query_width() + h * d, scratch);
        }
    });
}

}  // namespace espalier
