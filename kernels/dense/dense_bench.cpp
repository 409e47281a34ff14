// Dense layers: our own kernels of every instruction set beside oneDNN on the best one. One thread.
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/dense/dense.h"

namespace espalier::bench {
namespace {

struct Shape {
    size_t inputs, outputs;
};

void dense(benchmark::State& state, Isa isa, bool onednn, Shape size, size_t batch) {
    const DenseShape shape{size.inputs, size.outputs, Activation::gelu_erf, true};
    const Numbers weight(shape.inputs * shape.outputs, weight_scale(shape.inputs)), bias(shape.outputs);
    const auto backend = onednn ? make_onednn_backend(isa) : make_native_backend(isa);
    const auto layer = backend->prepare(shape, weight.data(), bias.data(), std::pmr::get_default_resource());
    const auto runner = backend->make_runner(1);
    Inputs inputs(padded_rows(batch) * shape.inputs, sets_for(batch));
    Numbers y(padded_rows(batch) * shape.outputs);
    runner->run(*layer, inputs.next(), y.data(), batch);  // oneDNN makes its primitive on the first call
    for (auto _ : state) {
        runner->run(*layer, inputs.next(), y.data(), batch);
        benchmark::DoNotOptimize(y.data());
        benchmark::ClobberMemory();
    }
    state.SetLabel(runner->implementation(*layer, batch));
    const double flops = 2.0 * static_cast<double>(batch * shape.inputs * shape.outputs);
    state.counters["flop/s"] =
        benchmark::Counter(flops * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

const bool registered = [] {
    const auto add = [](Isa isa, bool onednn) {
        for (const Shape shape : {Shape{384, 1152}, {384, 1536}, {1536, 384}, {768, 3072}}) {
            for (const size_t batch : {1, 8, 64, 512}) {
                const std::string name = "dense:" + std::to_string(shape.inputs) + "x" +
                                         std::to_string(shape.outputs) + "/" + (onednn ? "onednn-" : "") +
                                         name_of(isa) + "/" + std::to_string(batch);
                benchmark::RegisterBenchmark(name.c_str(), dense, isa, onednn, shape, batch);
            }
        }
    };
    for (const Isa isa : available_isas())
        add(isa, false);
    const bool served = best_isa() == Isa::avx2 || best_isa() == Isa::avx512;
    if (onednn_compiled_in() && served) add(best_isa(), true);
    return true;
}();

}  // namespace
}  // namespace espalier::bench
