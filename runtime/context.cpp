#include "runtime/context.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "kernels/cpu/denormals.h"
#include "kernels/cpu/parallel.h"

namespace espalier {
namespace {

// Without a tokenizer's limit the positions bound a sequence; where those are not learned, no table in the
// file bounds them, and a default must not ask for memory by a number that costs the file nothing.
size_t tokens_of(const Model& model, const ContextOptions& options) {
    constexpr uint32_t unlearned_default = 4096;
    const ModelSpec& spec = model.spec();
    if (options.max_tokens > 0) return options.max_tokens;
    const uint32_t limit = spec.tokenizer.max_tokens > 0 ? spec.tokenizer.max_tokens : spec.max_positions;
    return spec.positions == Positions::learned ? limit : std::min(limit, unlearned_default);
}

size_t sequences_of(size_t tokens, const ContextOptions& options) {
    return options.max_sequences > 0 ? options.max_sequences : std::min<size_t>(64, tokens);
}

void check_options(const ContextOptions& options) {
    // Above any machine that exists; keeps sizes far from overflow.
    if (options.threads < 1 || options.threads > 1024)
        throw Error(Status::invalid_argument, "context: threads: expected 1 to 1024, found %d",
                    options.threads);
    constexpr uint32_t most = 1u << 24;
    if (options.max_tokens > most || options.max_sequences > most)
        throw Error(Status::invalid_argument,
                    "context: expected at most %u tokens and sequences, found %u and %u", most,
                    options.max_tokens, options.max_sequences);
}

// What decides the sizes of buffers, over all blocks.
struct Widest {
    size_t qkv = 0;  // bytes
    size_t query = 0, inner = 0, dense_parts = 0, thread_scratch = 0;
};

Widest widest_of(const Model& model, size_t max_tokens) {
    Widest widest;
    const ModelSpec& spec = model.spec();
    const size_t longest = std::min<size_t>(max_tokens, spec.max_positions);
    widest.thread_scratch = spec.hidden * sizeof(float);  // an embedding row
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (block.qkv) {
            widest.qkv = std::max(widest.qkv, block.qkv_row_bytes());
            widest.query = std::max(widest.query, block.attention.query_width());
            widest.thread_scratch =
                std::max(widest.thread_scratch, attention_scratch(block.attention, longest) * sizeof(float));
        }
        size_t dense_parts = 0;
        for (const PreparedPart& part : block.parts) {
            switch (part.spec->kind) {
                case PartKind::dense:
                    if (part.up == nullptr) break;  // fused with a forest
                    widest.inner = std::max<size_t>(widest.inner, part.spec->width);
                    ++dense_parts;
                    break;
                case PartKind::leaf_forest:
                    widest.thread_scratch =
                        std::max(widest.thread_scratch, scratch_bytes(part.leaf_forest, max_tokens));
                    break;
                case PartKind::neuron_forest:
                    widest.thread_scratch =
                        std::max(widest.thread_scratch, scratch_bytes(part.neuron_forest, max_tokens));
                    break;
            }
        }
        widest.dense_parts = std::max(widest.dense_parts, dense_parts);
    }
    return widest;
}

Workspace lay_out_workspace(Arena& arena, const Model& model, size_t max_tokens, size_t max_sequences,
                            int threads, std::span<ForestRoutes> routes) {
    const ModelSpec& spec = model.spec();
    const Widest widest = widest_of(model, max_tokens);
    const size_t rows = padded_rows(max_tokens), pooled_rows = padded_rows(max_sequences),
                 hidden = spec.hidden;
    Workspace w;
    // Backends may read the rows of x behind a slice's own: up to 127 for padding, behind the last slice too.
    w.x = arena.take<float>((rows + (max_sequences > 1 ? 128 : 0)) * hidden);
    w.y = arena.take<float>(rows * hidden);
    if (spec.norm_placement == NormPlacement::pre) w.normed = arena.take<float>(rows * hidden);
    if (widest.dense_parts > 1) w.extra = arena.take<float>(rows * hidden);
    // Attention loads whole vectors past the last value of the last row.
    if (widest.qkv > 0) w.qkv = arena.take<std::byte>(rows * widest.qkv + 256);
    if (widest.query > 0) w.mix = arena.take<float>(rows * widest.query);
    const TensorType precision = model.precision();
    const size_t inner_rows = padded_rows(std::min(max_tokens, Context::inner_tokens));
    const bool is_8bit = precision == TensorType::s8;
    if (widest.inner > 0) {
        w.inner = arena.take<std::byte>(inner_rows * widest.inner * (precision == TensorType::bf16 ? 2 : 4));
        w.inner_rounded = arena.take<std::byte>(is_8bit ? inner_rows * widest.inner : 0);
        w.inner_rounded_scale = arena.take<float>(is_8bit ? inner_rows : 0);
    }
    if (precision != TensorType::f32) {
        w.rounded = arena.take<std::byte>(rows * std::max(hidden, widest.query) * bytes_of(precision));
        w.rounded_scale = arena.take<float>(is_8bit ? rows : 0);
    }
    w.pooled = arena.take<float>(pooled_rows * hidden);
    size_t head_inner = 0, head_out = 0;
    for (const HeadSpec& head : spec.heads) {
        head_inner = std::max<size_t>(head_inner, head.dense_width);
        head_out = std::max<size_t>(head_out, head.outputs);
    }
    w.head_inner = arena.take<float>(pooled_rows * head_inner);
    w.head_out = arena.take<float>(pooled_rows * head_out);
    w.thread_scratch_bytes = round_up(widest.thread_scratch, 64);
    w.thread_scratch = arena.take<std::byte>(w.thread_scratch_bytes * static_cast<size_t>(threads));
    const size_t text = std::min<size_t>(max_tokens, spec.tokenizer.max_tokens);
    w.slice_offsets = arena.take<uint32_t>(max_sequences + 1);
    w.ids = arena.take<int32_t>(text);
    w.types = arena.take<uint8_t>(text);
    for (const PreparedBlock& block : model.prepared().blocks) {
        for (const PreparedPart& part : block.parts) {
            if (!part.spec->is_forest()) continue;
            const ForestRoutes taken{arena.take<uint32_t>(max_tokens * part.spec->trees),
                                     arena.take<float>(max_tokens * part.spec->trees)};
            if (part.forest < routes.size()) routes[part.forest] = taken;
        }
    }
    return w;
}

}  // namespace

size_t Context::arena_bytes(const Model& model, const ContextOptions& options) {
    check_options(options);
    Arena counting(nullptr);
    const size_t tokens = tokens_of(model, options);
    lay_out_workspace(counting, model, tokens, sequences_of(tokens, options), options.threads, {});
    return counting.used();
}

Context::Context(const Model& model, const ContextOptions& options)
    : model_(model),
      threads_(options.threads),
      max_tokens_(tokens_of(model, options)),
      max_sequences_(sequences_of(max_tokens_, options)),
      cancel_(options.cancel),
      routes_(model.prepared().forests, model.memory()),
      tokenizer_scratch_(model.memory()) {
    arena_bytes_ = arena_bytes(model, options);
    std::byte* base = options.arena.data();
    if (base != nullptr &&
        (reinterpret_cast<uintptr_t>(base) % 64 != 0 || options.arena.size() < arena_bytes_))
        throw Error(Status::invalid_argument,
                    "context: arena: expected %zu bytes at a multiple of 64, found %zu bytes at %p",
                    arena_bytes_, options.arena.size(), static_cast<void*>(base));
    dense_ = model.backend().make_runner(threads_);
    if (base == nullptr) {
        owned_arena_ = model.memory()->allocate(arena_bytes_, 64);
        base = static_cast<std::byte*>(owned_arena_);
    }
    Arena arena(base);
    work_ = lay_out_workspace(arena, model_, max_tokens_, max_sequences_, threads_, routes_);
}

Context::~Context() {
    if (owned_arena_ != nullptr) model_.memory()->deallocate(owned_arena_, arena_bytes_, 64);
}

void Context::check(const Batch& batch) const {
    const ModelSpec& spec = model_.spec();
    const auto fail = [](const char* what, size_t where, unsigned long long expected,
                         unsigned long long found) {
        throw Error(Status::invalid_argument, "batch: %s %zu: expected at most %llu, found %llu", what, where,
                    expected, found);
    };
    if (batch.offsets.size() < 2 || batch.offsets[0] != 0)
        throw Error(Status::invalid_argument,
                    "batch: expected at least one sequence and offsets that start with 0");
    if (batch.sequences() > max_sequences_ || batch.tokens() > max_tokens_)
        throw Error(Status::too_long,
                    "batch: expected at most %zu sequences of %zu tokens in all (the context's limits), "
                    "found %zu of %zu",
                    max_sequences_, max_tokens_, batch.sequences(), batch.tokens());
    if (!batch.types.empty() && batch.types.size() != batch.ids.size())
        throw Error(Status::invalid_argument, "batch: expected as many types as ids (%zu), found %zu",
                    batch.ids.size(), batch.types.size());
    for (size_t s = 0; s < batch.sequences(); ++s) {
        if (batch.offsets[s + 1] <= batch.offsets[s] || batch.offsets[s + 1] > batch.tokens())
            throw Error(Status::invalid_argument, "batch: offset %zu: expected %u to %zu, found %u", s + 1,
                        batch.offsets[s] + 1, batch.tokens(), batch.offsets[s + 1]);
        if (batch.length(s) > spec.max_positions)
            throw Error(Status::too_long,
                        "batch: sequence %zu: expected at most %u tokens (the model's positions), found %zu",
                        s, spec.max_positions, batch.length(s));
    }
    for (size_t t = 0; t < batch.tokens(); ++t) {
        if (batch.ids[t] < 0 || static_cast<uint32_t>(batch.ids[t]) >= spec.vocabulary)
            throw Error(Status::invalid_argument, "batch: token %zu: expected an id of 0 to %u, found %d", t,
                        spec.vocabulary - 1, batch.ids[t]);
        if (!batch.types.empty() && batch.types[t] >= std::max<uint32_t>(spec.token_types, 1))
            fail("type of token", t, spec.token_types > 0 ? spec.token_types - 1 : 0, batch.types[t]);
    }
}

void Context::check_cancelled() const {
    if (cancel_ == nullptr) return;
    if (__atomic_load_n(cancel_, __ATOMIC_RELAXED) != 0)
        throw Error(Status::cancelled, "cancelled by the caller");
}

std::span<const float> Context::encode(const Batch& batch) {
    check(batch);
    wake_threads(threads_);
    const FlushDenormals flush;
    try {
        run(batch);
    } catch (...) {
        tokens_ = 0;  // routes of a call that failed half-way mean nothing
        throw;
    }
    return {work_.x, batch.tokens() * model_.spec().hidden};
}

std::span<const float> Context::embed(const Batch& batch) {
    encode(batch);
    const ModelSpec& spec = model_.spec();
    pool(batch, spec.pooling == Pooling::none ? Pooling::mean : spec.pooling);
    if (spec.has(model_flag::normalise_output)) {
        for (size_t s = 0; s < batch.sequences(); ++s) {
            float* vector = work_.pooled + s * spec.hidden;
            double squares = 0;
            for (size_t i = 0; i < spec.hidden; ++i)
                squares += static_cast<double>(vector[i]) * vector[i];
            // torch.nn.functional.normalize: at least 1e-12.
            const auto scale = static_cast<float>(1.0 / std::max(std::sqrt(squares), 1e-12));
            for (size_t i = 0; i < spec.hidden; ++i)
                vector[i] *= scale;
        }
    }
    return {work_.pooled, batch.sequences() * spec.hidden};
}

std::span<const float> Context::score(const Batch& batch, uint32_t head) {
    if (head >= model_.prepared().heads.size())
        throw Error(Status::invalid_argument,
                    "head: expected a number below %zu (the model's heads), found %u",
                    model_.prepared().heads.size(), head);
    encode(batch);
    const PreparedHead& prepared = model_.prepared().heads[head];
    pool(batch, prepared.spec->pooling);
    const float* input = work_.pooled;
    if (prepared.dense) {
        dense_->run(*prepared.dense, input, work_.head_inner, batch.sequences());
        input = work_.head_inner;
    }
    dense_->run(*prepared.out, input, work_.head_out, batch.sequences());
    return {work_.head_out, batch.sequences() * prepared.spec->outputs};
}

size_t Context::tokenize(std::string_view text, std::optional<std::string_view> pair, bool plain_special,
                         std::span<int32_t> ids, std::span<uint8_t> types, bool& truncated) {
    const size_t limit = std::min<size_t>(model_.spec().tokenizer.max_tokens, ids.size());
    const Encoded encoded =
        model_.tokenizer().encode(text, pair, limit, plain_special, ids, types, tokenizer_scratch_);
    truncated = encoded.truncated;
    return encoded.count;
}

Context::Tokens Context::tokenize(std::string_view text, std::optional<std::string_view> pair,
                                  bool plain_special) {
    model_.tokenizer();  // throws where there is none
    const size_t limit = std::min<size_t>(model_.spec().tokenizer.max_tokens, max_tokens_);
    bool truncated = false;
    const size_t count =
        tokenize(text, pair, plain_special, {work_.ids, limit}, {work_.types, limit}, truncated);
    return {{work_.ids, count}, {work_.types, count}, truncated, {0, static_cast<uint32_t>(count)}};
}

Choice most_likely(std::span<const float> scores) {
    Choice choice;
    for (uint32_t i = 1; i < scores.size(); ++i) {
        if (scores[i] > scores[choice.index]) choice.index = i;
    }
    float sum = 0;
    for (const float score : scores)
        sum += std::exp(score - scores[choice.index]);
    choice.probability = 1.0F / sum;
    return choice;
}

}  // namespace espalier
