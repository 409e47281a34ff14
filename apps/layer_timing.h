// Times several layers alternately, on tokens that no call has seen before.
#pragma once

#include <functional>

#include "apps/layer_forest.h"
#include "apps/quantile.h"
#include "apps/roofline.h"

namespace espalier {

// New tokens for a group of calls.
class TokenSource {
   public:
    // router: tells which leaf a token takes; for Routing::distinct.
    TokenSource(TensorType type, size_t hidden, size_t batch, Routing routing, LayerFfn* router,
                std::pmr::memory_resource* memory);
    // At least one call, at most max_calls().
    Tokens next(size_t calls);
    size_t max_calls() const { return max_calls_; }
    const TokenBuffer& buffer() const { return buffer_; }
    float* y() const { return y_.as<float>(); }

   private:
    void spread(size_t call);

    size_t batch_, max_calls_;
    Routing routing_;
    LayerFfn* router_;
    TokenBuffer buffer_, pool_;
    HugeBlock y_, pool_y_;
    uint64_t state_ = 20231118;
};

class TimedLayer {
   public:
    using Run = std::function<void(const Tokens&, float*)>;
    TimedLayer(Run run, size_t hidden, size_t batch) : run_(std::move(run)), hidden_(hidden), batch_(batch) {}

    // One group: new tokens, then `calls` calls on their slices between two looks at the clock. Seconds.
    double group(TokenSource& source, size_t calls) const;
    // A turn: untimed groups until caches hold the weights, then timed ones.
    void turn(TokenSource& source, double turn_seconds);
    void cold_calls(TokenSource& source, CacheEvictor& evictor);

    double median_us() const { return quantile(times_, 0.5); }
    double p99_us() const { return quantile(times_, 0.99); }
    double cold_us() const { return quantile(cold_, 0.5); }
    size_t calls() const { return calls_; }
    size_t groups() const { return times_.size(); }
    size_t cold_count() const { return cold_.size(); }

   private:
    size_t calls_of_group(const TokenSource& source) const;

    Run run_;
    size_t hidden_, batch_, calls_ = 0;
    double estimate_ = 0;               // seconds of a call
    std::vector<double> times_, cold_;  // us of a call
};

void time_in_turns(std::vector<TimedLayer*>& layers, TokenSource& source, double seconds);

}  // namespace espalier
