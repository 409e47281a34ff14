// Activations of 64 rows of MiniLM's feed-forward width. Work is in place, so each call gets fresh values;
// `copy` is what that alone costs.
#include <cstring>
#include <string>

#include "kernels/bench_support.h"

namespace espalier::bench {
namespace {

constexpr size_t count = 64 * 1536;

void activate(benchmark::State& state, Isa isa, Activation activation) {
    Inputs inputs(count, 8);
    Numbers values(count);
    for (auto _ : state) {
        std::memcpy(values.data(), inputs.next(), count * sizeof(float));
        kernel_table(isa).activate(activation, values.data(), count);
        benchmark::DoNotOptimize(values.data());
        benchmark::ClobberMemory();
    }
    state.counters["values"] =
        benchmark::Counter(static_cast<double>(count * state.iterations()), benchmark::Counter::kIsRate);
}

const bool registered = [] {
    benchmark::RegisterBenchmark("copy", activate, Isa::scalar, Activation::none);
    for (const Isa isa : available_isas()) {
        for (const Activation activation :
             {Activation::gelu_erf, Activation::gelu_tanh, Activation::silu, Activation::tanh}) {
            const std::string name = std::string(name_of(activation)) + "/" + name_of(isa);
            benchmark::RegisterBenchmark(name.c_str(), activate, isa, activation);
        }
    }
    return true;
}();

}  // namespace
}  // namespace espalier::bench
