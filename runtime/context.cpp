#include "runtime/context.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <utility>

#include "base/error.h"
#include "kernels/cpu/denormals.h"
#include "kernels/cpu/parallel.h"

namespace espalier {
namespace {

size_t divided(size_t a, size_t b) {
    return (a + b - 1) / b;
}

// Without a tokenizer's limit the positions bound a sequence; where those are not learned, no table in the
// file bounds them, and a default must not ask for memory by a number that costs the file nothing.
size_t tokens_of(const Model& model, const ContextOptions& options) {
    constexpr uint32_t unlearned_default = 4096;
    const ModelSpec& spec = model.spec();
    if (options.max_tokens > 0) return options.max_tokens;
    const uint32_t limit = spec.tokenizer.max_tokens > 0 ? spec.tokenizer.max_tokens : spec.max_positions;
    return spec.positions == Positions::learned ? limit : std::min(limit, unlearned_default);
}

// How many tokens a decoder's sequence may have.
size_t window_of(const Model& model, const ContextOptions& options) {
    return std::min<size_t>(tokens_of(model, options), model.spec().max_positions);
}

WorkspaceShape shape_of(const Model& model, const ContextOptions& options) {
    if (model.spec().family == Family::decoder) return {decoder_chunk, 1, options.threads};
    const size_t tokens = tokens_of(model, options);
    return {tokens, options.max_sequences > 0 ? options.max_sequences : std::min<size_t>(64, tokens),
            options.threads};
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

}  // namespace

size_t Context::arena_bytes(const Model& model, const ContextOptions& options) {
    check_options(options);
    Arena counting(nullptr);
    lay_out_workspace(counting, model, shape_of(model, options), {});
    if (model.spec().family == Family::decoder)
        const Decoder sizes(counting, model, window_of(model, options), options.threads,
                            device_named(options.device).is_cuda);
    return counting.used();
}

Context::Context(const Model& model, const ContextOptions& options)
    : model_(model),
      shape_(shape_of(model, options)),
      cancel_(options.cancel),
      routes_(model.prepared().forests, model.memory()),
      lanes_(model.memory()),
      tokenizer_scratch_(model.memory()) {
    const size_t bytes = arena_bytes(model, options);
    std::byte* base = options.arena.data();
    if (base != nullptr && (reinterpret_cast<uintptr_t>(base) % 64 != 0 || options.arena.size() < bytes))
        throw Error(Status::invalid_argument,
                    "context: arena: expected %zu bytes at a multiple of 64, found %zu bytes at %p", bytes,
                    options.arena.size(), static_cast<void*>(base));
    if (base == nullptr) base = own_arena_.allocate(model.memory(), bytes);
    Arena arena(base);
    work_ = lay_out_workspace(arena, model_, shape_, routes_);
    whole_.emplace(model_, shape_.threads, work_.whole, routes_, cancel_);
    lanes_.reserve(lanes_of(shape_));
    for (size_t i = 0; i < lanes_of(shape_); ++i)
        lanes_.emplace_back(model_, 1, lane_buffers(work_, model_, shape_, i), routes_, cancel_);
    const DeviceName device = device_named(options.device);
    const bool decodes = model.spec().family == Family::decoder;
    if (device.is_cuda) {
        WorkspaceShape there = shape_;
        if (decodes) there.max_tokens = std::min(device_chunk, window_of(model, options));
        device_ = make_cuda_encoder(model, device.number, there, cancel_);
    }
    if (!decodes) return;
    decoder_.emplace(arena, model, window_of(model, options), shape_.threads, device.is_cuda);
    decoder_->attach(*whole_, device_.get(), work_.x, observers_);
}

Decoder& Context::decoder() {
    if (!decoder_)
        throw Error(Status::unsupported, "%s: expected a decoder, found an encoder", model_.file().source());
    return *decoder_;
}

void Context::refuse_decoders() const {
    if (decoder_)
        throw Error(Status::unsupported, "%s: expected an encoder, found a decoder", model_.file().source());
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
    if (batch.sequences() > shape_.max_sequences || batch.tokens() > shape_.max_tokens)
        throw Error(Status::too_long,
                    "batch: expected at most %zu sequences of %zu tokens in all (the context's limits), "
                    "found %zu of %zu",
                    shape_.max_sequences, shape_.max_tokens, batch.sequences(), batch.tokens());
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

// Whole sequences, as many as have at most `most` tokens together, or one. Slices are nearly equal: a leaf's
// rows are loaded for the few tokens of a small one as for many.
size_t Context::cut_into_slices(const Batch& batch, size_t most) {
    size_t slices = 0;
    uint32_t* offsets = work_.slice_offsets;
    for (size_t first = 0; first < batch.sequences(); ++slices) {
        const uint32_t base = batch.offsets[first];
        const size_t left = batch.tokens() - base, share = divided(left, divided(left, most));
        size_t end = first + 1;
        while (end < batch.sequences() && batch.offsets[end] - base < share &&
               batch.offsets[end + 1] - base <= most)
            ++end;
        for (size_t s = first; s <= end; ++s)
            *offsets++ = batch.offsets[s] - base;
        work_.slice_ends[slices] = static_cast<uint32_t>(end);
        first = end;
    }
    return slices;
}

void Context::run_slice(Encoder& encoder, const Batch& batch, size_t index) {
    const size_t first = index > 0 ? work_.slice_ends[index - 1] : 0, end = work_.slice_ends[index];
    const size_t base = batch.offsets[first], tokens = batch.offsets[end] - base;
    Batch slice;
    slice.ids = batch.ids.subspan(base, tokens);
    if (!batch.types.empty()) slice.types = batch.types.subspan(base, tokens);
    slice.offsets = {work_.slice_offsets + first + index, end - first + 1};
    encoder.run(slice, base, work_.x + base * model_.spec().hidden, observers_);
}

// Slices small enough that every lane gets nearly as many tokens. The number of slices; 0: that cannot be,
// and threads had better share each.
size_t Context::cut_for_lanes(const Batch& batch) {
    const size_t lanes = lanes_.size();
    if (lanes == 0 || batch.sequences() < lanes || observers_.any()) return 0;
    const size_t rounds = divided(batch.tokens(), lanes * slice_tokens(model_));
    const size_t slices = cut_into_slices(batch, divided(batch.tokens(), lanes * rounds));
    // As run_lanes will: the next slice goes to whoever is done first.
    std::fill_n(work_.loads, lanes, 0u);
    for (size_t i = 0, first = 0; i < slices; first = work_.slice_ends[i++])
        *std::min_element(work_.loads, work_.loads + lanes) +=
            batch.offsets[work_.slice_ends[i]] - batch.offsets[first];
    const size_t longest = *std::max_element(work_.loads, work_.loads + lanes);
    return longest <= most_lane_tokens(batch.tokens(), lanes) ? slices : 0;
}

// Each thread takes slices through all blocks by itself: one meeting of threads a call, not seven a block.
void Context::run_lanes(const Batch& batch, size_t slices) {
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    parallel_for(shape_.threads, lanes_.size(), 1, [&](size_t, size_t, int thread) {
        try {
            for (size_t i = next++; i < slices && !failed; i = next++)
                run_slice(lanes_[static_cast<size_t>(thread)], batch, i);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
}

void Context::run(const Batch& batch) {
    tokens_ = batch.tokens();
    if (device_) {
        device_->run(batch, observers_);
        routes_are_away_ = true;
        return;
    }
    if (const size_t slices = cut_for_lanes(batch); slices > 0) return run_lanes(batch, slices);
    // What lies between two layers stays in the near caches. Observers see a batch whole.
    const size_t most =
        observers_.any() ? tokens_ : slice_tokens(model_) * static_cast<size_t>(shape_.threads);
    const size_t slices = cut_into_slices(batch, most);
    for (size_t i = 0; i < slices; ++i)
        run_slice(*whole_, batch, i);
}

// All blocks: hidden states are then in work_.x, or on the device.
void Context::pass(const Batch& batch) {
    refuse_decoders();
    check(batch);
    if (!device_) wake_threads(shape_.threads);
    const FlushDenormals flush;
    try {
        run(batch);
    } catch (...) {
        tokens_ = 0;  // routes of a call that failed half-way mean nothing
        throw;
    }
}

ForestRoutes Context::routes(size_t forest) const {
    if (std::exchange(routes_are_away_, false)) device_->routes(routes_);
    return routes_[forest];
}

std::span<const float> Context::encode(const Batch& batch) {
    pass(batch);
    if (device_) device_->hidden(work_.x);
    return {work_.x, batch.tokens() * model_.spec().hidden};
}

std::span<const float> Context::embed(const Batch& batch) {
    pass(batch);
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
    refuse_decoders();
    if (head >= model_.prepared().heads.size())
        throw Error(Status::invalid_argument,
                    "head: expected a number below %zu (the model's heads), found %u",
                    model_.prepared().heads.size(), head);
    pass(batch);
    const PreparedHead& prepared = model_.prepared().heads[head];
    pool(batch, prepared.spec->pooling);
    const float* input = work_.pooled;
    if (prepared.dense) {
        dense().run(*prepared.dense, input, work_.head_inner, batch.sequences());
        input = work_.head_inner;
    }
    dense().run(*prepared.out, input, work_.head_out, batch.sequences());
    return {work_.head_out, batch.sequences() * prepared.spec->outputs};
}

void Context::pool(const Batch& batch, Pooling pooling) {
    if (device_) return device_->pooled(pooling, work_.pooled);
    const size_t hidden = model_.spec().hidden;
    for (size_t s = 0; s < batch.sequences(); ++s) {
        const float* first = work_.x + batch.offsets[s] * hidden;
        float* target = work_.pooled + s * hidden;
        const size_t length = batch.length(s);
        if (pooling != Pooling::mean) {
            std::memcpy(target, pooling == Pooling::last ? first + (length - 1) * hidden : first,
                        hidden * sizeof(float));
            continue;
        }
        std::memset(target, 0, hidden * sizeof(float));
        for (size_t t = 0; t < length; ++t) {
            for (size_t i = 0; i < hidden; ++i)
                target[i] += first[t * hidden + i];
        }
        for (size_t i = 0; i < hidden; ++i)
            target[i] /= static_cast<float>(length);
    }
}

size_t Context::tokenize(std::string_view text, std::optional<std::string_view> pair, bool plain_special,
                         std::span<int32_t> ids, std::span<uint8_t> types, bool& truncated) {
    const size_t limit = std::min<size_t>(model_.spec().tokenizer.max_tokens, ids.size());
    if (decoder_) {
        if (pair)
            throw Error(Status::invalid_argument, "%s: expected one text (a decoder), found a pair",
                        model_.file().source());
        const size_t count =
            model_.pieces().encode(text, plain_special, ids.first(limit), decoder_->tokenizer_scratch());
        std::fill_n(types.begin(), std::min(types.size(), limit), uint8_t{0});
        truncated = count > limit;
        return std::min(count, limit);
    }
    const Encoded encoded =
        model_.tokenizer().encode(text, pair, limit, plain_special, ids, types, tokenizer_scratch_);
    truncated = encoded.truncated;
    return encoded.count;
}

Context::Tokens Context::tokenize(std::string_view text, std::optional<std::string_view> pair,
                                  bool plain_special) {
    if (!decoder_) model_.tokenizer();  // throws where there is none
    const size_t limit = std::min<size_t>(model_.spec().tokenizer.max_tokens, shape_.max_tokens);
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
