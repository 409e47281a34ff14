// LayerNorm with its residual addition, and RMSNorm without.
#include <string>

#include "kernels/bench_support.h"

namespace espalier::bench {
namespace {

void norm(benchmark::State& state, Isa isa, bool rms, size_t hidden, size_t tokens) {
    const Numbers weight(hidden), bias(hidden, 0.1F);
    const NormWeights weights{hidden, 1e-12F, rms, weight.data(), rms ? nullptr : bias.data()};
    Inputs x(tokens * hidden, sets_for(tokens)), residual(tokens * hidden, sets_for(tokens));
    Numbers y(tokens * hidden);
    for (auto _ : state) {
        kernel_table(isa).norm(weights, x.next(), rms ? nullptr : residual.next(), y.data(), {}, tokens);
        benchmark::DoNotOptimize(y.data());
        benchmark::ClobberMemory();
    }
}

const bool registered = [] {
    for (const Isa isa : available_isas()) {
        for (const size_t tokens : {1, 64}) {
            const std::string tail = "@384/" + std::string(name_of(isa)) + "/" + std::to_string(tokens);
            benchmark::RegisterBenchmark(("layer_norm" + tail).c_str(), norm, isa, false, 384, tokens);
            benchmark::RegisterBenchmark(("rms_norm" + tail).c_str(), norm, isa, true, 384, tokens);
        }
    }
    return true;
}();

}  // namespace
}  // namespace espalier::bench
