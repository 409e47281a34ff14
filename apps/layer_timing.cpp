#include "apps/layer_timing.h"

#include <algorithm>
#include <chrono>

#include "apps/progress.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;

// A turn, and the untimed part before it as a share of it. Short measurements have shorter turns.
constexpr double longest_turn = 0.05, warm_share = 0.3;
// A call this long reads its weights from memory in a hundredth of its time: no untimed call before it.
constexpr double long_call_seconds = 0.2;
// Of Routing::distinct: tokens to choose from for each that is chosen.
constexpr size_t pool_factor = 4;
// Tokens of a group of small calls.
constexpr size_t group_tokens = 256;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

TokenSource::TokenSource(TensorType type, size_t hidden, size_t batch, Routing routing, LayerFfn* router,
                         std::pmr::memory_resource* memory)
    : batch_(batch),
      max_calls_(std::max<size_t>(1, group_tokens / batch)),
      routing_(router != nullptr && router->has_forest() ? routing : Routing::random),
      router_(router),
      // The dense backend may compute on whole blocks of rows.
      buffer_(type, hidden, padded_rows(max_calls_ * batch), memory),
      pool_(type, hidden, routing_ == Routing::distinct ? padded_rows(pool_factor * batch) : 0, memory),
      y_(padded_rows(max_calls_ * batch) * hidden * sizeof(float), memory) {
    if (routing_ == Routing::distinct)
        pool_y_ = HugeBlock(padded_rows(batch) * hidden * sizeof(float), memory);
}

Tokens TokenSource::next(size_t calls) {
    if (routing_ == Routing::distinct) {
        for (size_t c = 0; c < calls; ++c)
            spread(c);
    } else {
        buffer_.fill(calls * batch_, routing_ == Routing::same ? batch_ : 1, state_);
    }
    return buffer_.tokens(calls * batch_);
}

// Round after round takes one token of every leaf that has one left.
void TokenSource::spread(size_t call) {
    const size_t count = pool_factor * batch_;
    pool_.fill(count, 1, state_);
    std::vector<std::pair<uint32_t, uint32_t>> leaves;  // leaf, token
    for (size_t start = 0; start < count; start += batch_) {
        router_->run(pool_.tokens(count).slice(start, batch_), pool_y_.as<float>());
        size_t stride = 1;
        const uint32_t* leaf = router_->first_leaves(stride);
        for (size_t t = 0; t < batch_; ++t)
            leaves.emplace_back(leaf[t * stride], static_cast<uint32_t>(start + t));
    }
    std::sort(leaves.begin(), leaves.end());
    std::vector<std::pair<uint32_t, uint32_t>> ranked;  // place within its leaf, token
    for (size_t i = 0, rank = 0; i < leaves.size(); ++i) {
        rank = i > 0 && leaves[i].first == leaves[i - 1].first ? rank + 1 : 0;
        ranked.emplace_back(static_cast<uint32_t>(rank), leaves[i].second);
    }
    std::sort(ranked.begin(), ranked.end());  // by token within a round: the order of leaves tells nothing
    for (size_t t = 0; t < batch_; ++t)
        buffer_.copy(pool_, ranked[t].second, call * batch_ + t);
}

double TimedLayer::group(TokenSource& source, size_t calls) const {
    const Tokens tokens = source.next(calls);
    float* y = source.y();
    const auto start = Clock::now();
    for (size_t c = 0; c < calls; ++c)
        run_(tokens.slice(c * batch_, batch_), y + c * batch_ * hidden_);
    return seconds_since(start);
}

size_t TimedLayer::calls_of_group(const TokenSource& source) const {
    const double fit = longest_turn / std::max(estimate_, 1e-9);
    return std::clamp<size_t>(fit < 1e6 ? static_cast<size_t>(fit) : 1000000, 1, source.max_calls());
}

void TimedLayer::turn(TokenSource& source, double turn_seconds) {
    if (estimate_ == 0) {
        group(source, 1);  // primitives are made, pages are touched
        estimate_ = group(source, 1);
    }
    const size_t calls = calls_of_group(source);
    for (double warm = 0; estimate_ < long_call_seconds;) {
        warm += group(source, calls);
        if (warm >= warm_share * turn_seconds) break;
    }
    for (double timed = 0; timed < turn_seconds;) {
        const double seconds = group(source, calls);
        timed += seconds;
        estimate_ = seconds / static_cast<double>(calls);
        times_.push_back(estimate_ * 1e6);
        calls_ += calls;
    }
}

void TimedLayer::cold_calls(TokenSource& source, CacheEvictor& evictor) {
    constexpr double longest = 0.1;
    if (estimate_ > longest) return;
    const int count = estimate_ > 0.01 ? 5 : 32;
    for (int i = 0; i < count; ++i) {
        const Tokens tokens = source.next(1);
        evictor.evict();
        const auto start = Clock::now();
        run_(tokens.slice(0, batch_), source.y());
        cold_.push_back(seconds_since(start) * 1e6);
    }
}

void time_in_turns(std::vector<TimedLayer*>& layers, TokenSource& source, double seconds) {
    constexpr int fewest_rounds = 3;
    const double turn = std::min(longest_turn, seconds / fewest_rounds);
    const double budget = seconds * static_cast<double>(layers.size());
    Progress progress("timing (ms)", static_cast<uint64_t>(budget * 1000));
    const auto start = Clock::now();
    for (int round = 0; round < fewest_rounds || seconds_since(start) < budget; ++round) {
        const auto begin = Clock::now();
        for (TimedLayer* layer : layers)
            layer->turn(source, turn);
        progress.advance(static_cast<uint64_t>(seconds_since(begin) * 1000));
    }
}

}  // namespace espalier
