#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace espalier {

Sampler::Sampler(const SamplerOptions& options, std::span<Candidate> candidates)
    : options_(options), candidates_(candidates), state_(options.seed) {
    if (!(options.temperature >= 0) || !std::isfinite(options.temperature))
        throw Error(Status::invalid_argument, "temperature: expected 0 or more, found %g",
                    static_cast<double>(options.temperature));
    if (!(options.top_p > 0 && options.top_p <= 1))
        throw Error(Status::invalid_argument, "top_p: expected more than 0 and at most 1, found %g",
                    static_cast<double>(options.top_p));
}

// SplitMix64; 53 bits in [0, 1).
double Sampler::uniform() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

int32_t Sampler::choose(std::span<const float> logits) {
    // Of a broken model a logit may be no number, which is less than all others, or infinite.
    const auto less = [](float a, float b) { return a < b || (std::isnan(a) && !std::isnan(b)); };
    const auto best = std::max_element(logits.begin(), logits.end(), less);
    if (options_.temperature == 0) return static_cast<int32_t>(best - logits.begin());
    const size_t all = logits.size();
    for (size_t i = 0; i < all; ++i) {
        const float weight = logits[i] == *best ? 1 : std::exp((logits[i] - *best) / options_.temperature);
        candidates_[i] = {weight >= 0 ? weight : 0, static_cast<uint32_t>(i)};
    }
    const auto likelier = [](const Candidate& a, const Candidate& b) {
        return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
    };
    size_t kept = options_.top_k > 0 ? std::min<size_t>(options_.top_k, all) : all;
    if (kept < all || options_.top_p < 1)
        std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(kept),
                          candidates_.begin() + static_cast<ptrdiff_t>(all), likelier);
    double sum = 0;
    for (size_t i = 0; i < kept; ++i)
        sum += candidates_[i].weight;
    if (options_.top_p < 1) {
        double together = 0;
        size_t few = 0;
        do
            together += candidates_[few++].weight;
        while (few < kept && together < sum * options_.top_p);
        kept = few;
        sum = together;
    }
    double left = uniform() * sum;
    for (size_t i = 0; i + 1 < kept; ++i) {
        left -= candidates_[i].weight;
        if (left < 0) return static_cast<int32_t>(candidates_[i].id);
    }
    return static_cast<int32_t>(candidates_[kept - 1].id);
}

}  // namespace espalier
