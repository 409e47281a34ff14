#include "runtime/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kernels/cpu/denormals.h"
#include "kernels/cpu/parallel.h"

namespace espalier {
namespace {

double negative_log_probability(std::span<const float> logits, int32_t id) {
    const float largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float value : logits)
        sum += std::exp(static_cast<double>(value) - largest);
    return std::log(sum) + largest - logits[static_cast<size_t>(id)];
}

}  // namespace

bool decoders_compiled_in() noexcept {
    return true;
}

Decoder::Decoder(Arena& arena, const Model& model, size_t window, int threads, bool on_device)
    : model_(model),
      cache_(arena, model, window, threads, on_device),
      threads_(threads),
      tokenizer_scratch_(model.memory()) {
    const size_t rows = padded_rows(decoder_logit_rows), vocabulary = model.spec().vocabulary;
    rows_ = arena.take<float>(rows * model.spec().hidden);
    const TensorType precision = model.precision();
    if (precision != TensorType::f32)
        rounded_ = arena.take<std::byte>(rows * model.spec().hidden * bytes_of(precision));
    if (precision == TensorType::s8) scales_ = arena.take<float>(rows);
    logits_ = arena.take<float>(rows * vocabulary);
    ids_ = arena.take<int32_t>(window);
    candidates_ = arena.take<Sampler::Candidate>(vocabulary);
}

void Decoder::attach(Encoder& blocks, DeviceEncoder* device, float* x, const Observers& observers) {
    blocks_ = &blocks;
    device_ = device;
    x_ = x;
    observers_ = &observers;
    const size_t padded = padded_rows(decoder_logit_rows), values = padded * model_.spec().hidden;
    std::fill_n(rows_, values, 0.0F);
    if (rounded_ != nullptr) std::fill_n(rounded_, values * bytes_of(model_.precision()), std::byte{0});
    if (scales_ != nullptr) std::fill_n(scales_, padded, 0.0F);
    cache_.prepare();
    if (device_ != nullptr) {
        device_->use_cache(cache_);
    } else {
        blocks.use_cache(cache_);
    }
}

void Decoder::check(std::span<const int32_t> ids, size_t before) const {
    if (ids.empty())
        throw Error(Status::invalid_argument, "sequence: expected at least one token, found none");
    if (ids.size() > window() - before)
        throw Error(Status::too_long,
                    "sequence: expected at most %zu tokens (the context's window), found %zu", window(),
                    before + ids.size());
    for (size_t t = 0; t < ids.size(); ++t) {
        if (ids[t] < 0 || static_cast<uint32_t>(ids[t]) >= model_.spec().vocabulary)
            throw Error(Status::invalid_argument, "sequence: token %zu: expected an id of 0 to %u, found %d",
                        before + t, model_.spec().vocabulary - 1, ids[t]);
    }
}

size_t Decoder::chunk() const {
    return device_ != nullptr ? device_chunk : decoder_chunk;
}

// At most chunk() tokens through all blocks.
void Decoder::pass(std::span<const int32_t> ids) {
    const std::array<uint32_t, 2> offsets{0, static_cast<uint32_t>(ids.size())};
    const FlushDenormals flush;
    try {
        if (device_ != nullptr) {
            device_->run({ids, {}, offsets}, *observers_);
        } else {
            blocks_->run({ids, {}, offsets}, 0, x_, *observers_);
        }
    } catch (...) {
        cache_.clear();
        throw;
    }
    cache_.advance(ids.size());
}

// Of tokens `first` .. of the last pass, at most decoder_logit_rows.
const float* Decoder::logits(size_t first, size_t rows) {
    if (device_ != nullptr) return device_->logits(first, rows);
    const size_t hidden = model_.spec().hidden;
    std::memcpy(rows_, x_ + first * hidden, rows * hidden * sizeof(float));
    const FlushDenormals flush;
    const void* x = rows_;
    if (rounded_ != nullptr) {
        x = rounded_;
        model_.kernels().round(model_.precision(), true, rows_, rows, hidden, rounded_, scales_);
    }
    blocks_->dense().run(*model_.prepared().output, x, scales_, logits_, rows);
    return logits_;
}

std::span<const float> Decoder::append(std::span<const int32_t> ids) {
    check(ids, length());
    if (device_ == nullptr) wake_threads(threads_);
    size_t last = 0;
    for (size_t start = 0; start < ids.size(); start += chunk()) {
        const auto part = ids.subspan(start, std::min(chunk(), ids.size() - start));
        pass(part);
        last = part.size() - 1;
    }
    return {logits(last, 1), model_.spec().vocabulary};
}

double Decoder::loss(std::span<const int32_t> ids) {
    check(ids, 0);
    clear();
    if (device_ == nullptr) wake_threads(threads_);
    const size_t vocabulary = model_.spec().vocabulary;
    double sum = 0;
    for (size_t start = 0; start < ids.size(); start += chunk()) {
        const auto part = ids.subspan(start, std::min(chunk(), ids.size() - start));
        pass(part);
        const size_t predicting = std::min(part.size(), ids.size() - 1 - start);
        for (size_t t = 0; t < predicting; t += decoder_logit_rows) {
            const size_t rows = std::min(decoder_logit_rows, predicting - t);
            const float* values = logits(t, rows);
            for (size_t r = 0; r < rows; ++r)
                sum +=
                    negative_log_probability({values + r * vocabulary, vocabulary}, ids[start + t + r + 1]);
        }
    }
    return sum;
}

}  // namespace espalier
