// LayerNorm with its residual addition, alone and with its rows to 8 bits beside, RMSNorm without, and rows
// turned and rounded to 8 bits alone.
#include <string>
#include <vector>

#include "kernels/bench_support.h"

namespace espalier::bench {
namespace {

// What comes in was just written by the layer before: it is in the second-level cache. No branch depends on
// it.
constexpr size_t sets = 2;

void norm(benchmark::State& state, Isa isa, bool rms, bool to_bytes, size_t hidden, size_t tokens) {
    const Numbers weight(hidden), bias(hidden, 0.1F);
    const NormWeights weights{hidden, 1e-12F, rms, weight.data(), rms ? nullptr : bias.data()};
    Inputs x(tokens * hidden, sets), residual(tokens * hidden, sets);
    Numbers y(tokens * hidden);
    std::vector<std::byte> bytes(tokens * hidden);
    std::vector<float> scale(tokens);
    RoundedRows rounded;
    if (to_bytes) rounded = {TensorType::s8, bytes.data(), scale.data()};
    for (auto _ : state) {
        kernel_table(isa).norm(weights, x.next(), rms ? nullptr : residual.next(), y.data(), rounded, tokens);
        benchmark::DoNotOptimize(y.data());
        benchmark::ClobberMemory();
    }
}

void round_to_bytes(benchmark::State& state, Isa isa, size_t hidden, size_t tokens) {
    Inputs x(tokens * hidden, sets);
    std::vector<std::byte> bytes(tokens * hidden);
    std::vector<float> scale(tokens);
    for (auto _ : state) {
        kernel_table(isa).round(TensorType::s8, true, x.next(), tokens, hidden, bytes.data(), scale.data());
        benchmark::DoNotOptimize(bytes.data());
        benchmark::ClobberMemory();
    }
}

const bool registered = [] {
    for (const Isa isa : available_isas()) {
        for (const size_t hidden : {384, 768}) {
            const std::string tail = "@" + std::to_string(hidden) + "/" + std::string(name_of(isa)) + "/64";
            benchmark::RegisterBenchmark(("layer_norm" + tail).c_str(), norm, isa, false, false, hidden, 64);
            benchmark::RegisterBenchmark(("layer_norm_s8" + tail).c_str(), norm, isa, false, true, hidden,
                                         64);
            benchmark::RegisterBenchmark(("rms_norm" + tail).c_str(), norm, isa, true, false, hidden, 64);
            benchmark::RegisterBenchmark(("round_s8" + tail).c_str(), round_to_bytes, isa, hidden, 64);
        }
    }
    return true;
}();

}  // namespace
}  // namespace espalier::bench
