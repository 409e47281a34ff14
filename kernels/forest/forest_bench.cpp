// Forests against batch size, on every instruction set of this machine. Time per call; `tokens` a second.
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/forest/leaf_pack.h"

namespace espalier::bench {
namespace {

struct Routes {
    Routes(size_t tokens, size_t trees) : leaf(tokens * trees), margin(tokens * trees) {}
    ForestRoutes all() { return {leaf.data(), margin.data()}; }
    std::vector<uint32_t> leaf;
    std::vector<float> margin;
};

template <class Forest, class Kernel>
void measure(benchmark::State& state, const Forest& forest, Kernel kernel, size_t batch) {
    Inputs inputs(batch * forest.hidden, sets_for(batch));
    Numbers y(batch * forest.hidden), scratch(scratch_bytes(forest, batch) / sizeof(float));
    Routes routes(batch, forest.trees);
    for (auto _ : state) {
        ForestCall call;
        call.x = inputs.next();
        call.tokens = batch;
        call.y = y.data();
        call.accumulate = false;
        call.routes = routes.all();
        call.scratch = reinterpret_cast<std::byte*>(scratch.data());
        kernel(forest, call);
        benchmark::DoNotOptimize(y.data());
        benchmark::ClobberMemory();
    }
    state.counters["tokens"] =
        benchmark::Counter(static_cast<double>(batch * state.iterations()), benchmark::Counter::kIsRate);
}

struct Shape {
    size_t trees, depth, leaf_width, hidden;
};

void leaf_forest(benchmark::State& state, Isa isa, Shape shape, size_t batch) {
    LeafForest f;
    f.hidden = shape.hidden;
    f.trees = shape.trees;
    f.depth = shape.depth;
    f.leaf_width = shape.leaf_width;
    const size_t groups = f.groups(), nodes = f.trees * (f.leaves() - 1);
    // Nodes with mean zero: every child is as likely as its sibling.
    const Numbers node(nodes * f.hidden, weight_scale(f.hidden)), threshold(nodes, 0.05F);
    const Numbers up(groups * f.leaf_width * f.hidden, weight_scale(f.hidden), 2);
    const Numbers down(groups * f.leaf_width * f.hidden, weight_scale(f.leaf_width), 3);
    const Numbers up_bias(groups * f.leaf_width), output_bias(groups * f.hidden);
    Numbers memory(LeafPacker::bytes(f) / sizeof(float));
    LeafPacker packer(f, reinterpret_cast<std::byte*>(memory.data()));
    packer.nodes(node.data(), threshold.data());
    packer.up(up.data());
    packer.up_bias(up_bias.data());
    packer.down(down.data());
    packer.output_bias(output_bias.data());
    measure(state, packer.forest(), kernel_table(isa).leaf_forest_f32, batch);
}

void neuron_forest(benchmark::State& state, Isa isa, Shape shape, size_t batch) {
    NeuronForest f;
    f.hidden = shape.hidden;
    f.trees = shape.trees;
    f.depth = shape.depth;
    const size_t rows = f.trees * f.nodes();
    const Numbers in(rows * f.hidden, weight_scale(f.hidden)), in_bias(rows, 0.05F);
    const Numbers out(rows * f.hidden, weight_scale(f.depth + 1), 2), out_bias(f.hidden);
    f.in = in.data();
    f.in_bias = in_bias.data();
    f.out = out.data();
    f.out_bias = out_bias.data();
    measure(state, f, kernel_table(isa).neuron_forest_f32, batch);
}

const bool registered = [] {
    for (const Isa isa : available_isas()) {
        for (const size_t batch : {1, 8, 64, 512}) {
            const std::string tail = "/" + std::string(name_of(isa)) + "/" + std::to_string(batch);
            const auto add = [&](const std::string& name, auto function, Shape shape) {
                benchmark::RegisterBenchmark((name + tail).c_str(), function, isa, shape, batch);
            };
            add("leaf:1:5:64@384", leaf_forest, {1, 5, 64, 384});
            add("neuron:1:11@768", neuron_forest, {1, 11, 0, 768});
            add("neuron:32:4@384", neuron_forest, {32, 4, 0, 384});
        }
    }
    return true;
}();

}  // namespace
}  // namespace espalier::bench
