// Forests against batch size, on every instruction set of this machine. Time per call; `tokens` a second.
#include <cstring>
#include <string>
#include <vector>

#include "base/float16.h"
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

// Rows of random numbers in any type.
struct Rows {
    Rows(TensorType type_, size_t count, size_t hidden, float deviation, uint64_t seed)
        : type(type_), bytes(count * hidden * bytes_of(type)), scale(count, 1.0F) {
        const Numbers numbers(count * hidden, deviation, seed);
        for (size_t r = 0; r < count; ++r) {
            const float* row = numbers.data() + r * hidden;
            std::byte* place = bytes.data() + r * hidden * bytes_of(type);
            if (type == TensorType::s8) {
                scale[r] = row_scale(row, hidden);
                quantize_row(row, scale[r], reinterpret_cast<int8_t*>(place), hidden);
            } else if (type == TensorType::bf16) {
                for (size_t c = 0; c < hidden; ++c)
                    reinterpret_cast<uint16_t*>(place)[c] = bfloat_from_float(row[c]);
            } else {
                std::memcpy(place, row, hidden * sizeof(float));
            }
        }
    }
    TensorType type;
    std::vector<std::byte> bytes;
    std::vector<float> scale;
};

template <class Forest, class Kernel>
void measure(benchmark::State& state, const Forest& forest, Kernel kernel, size_t batch) {
    const size_t sets = sets_for(batch), row_bytes = forest.hidden * bytes_of(forest.rows);
    const Rows inputs(forest.rows, batch * sets, forest.hidden, 1, 99);
    Numbers y(batch * forest.hidden), scratch(scratch_bytes(forest, batch) / sizeof(float));
    Routes routes(batch, forest.trees);
    size_t set = 0;
    for (auto _ : state) {
        ForestCall call;
        call.x = inputs.bytes.data() + set * batch * row_bytes;
        call.x_scale = inputs.scale.data() + set * batch;
        call.tokens = batch;
        call.y = y.data();
        call.accumulate = false;
        call.routes = routes.all();
        call.scratch = reinterpret_cast<std::byte*>(scratch.data());
        kernel(forest, call);
        benchmark::DoNotOptimize(y.data());
        benchmark::ClobberMemory();
        set = (set + 1) % sets;
    }
    state.counters["tokens"] =
        benchmark::Counter(static_cast<double>(batch * state.iterations()), benchmark::Counter::kIsRate);
}

struct Shape {
    size_t trees, depth, leaf_width, hidden;
};

void leaf_forest(benchmark::State& state, Isa isa, Shape shape, TensorType type, size_t batch) {
    LeafForest f;
    f.rows = type;
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
    measure(state, packer.forest(), kernel_table(isa).leaf_forest(type), batch);
}

void neuron_forest(benchmark::State& state, Isa isa, Shape shape, TensorType type, size_t batch) {
    NeuronForest f;
    f.hidden = shape.hidden;
    f.trees = shape.trees;
    f.depth = shape.depth;
    f.rows = type;
    const size_t rows = f.trees * f.nodes();
    const Rows in(type, rows, f.hidden, weight_scale(f.hidden), 1),
        out(type, rows, f.hidden, weight_scale(f.levels()), 2);
    const Numbers in_bias(rows, 0.05F), out_bias(f.hidden);
    f.in = in.bytes.data();
    f.in_scale = in.scale.data();
    f.in_bias = in_bias.data();
    f.out = out.bytes.data();
    f.out_scale = out.scale.data();
    f.out_bias = out_bias.data();
    measure(state, f, kernel_table(isa).neuron_forest(type), batch);
}

const bool registered = [] {
    for (const Isa isa : available_isas()) {
        for (const TensorType type : {TensorType::f32, TensorType::bf16, TensorType::s8}) {
            for (const size_t batch : {1, 8, 64, 512}) {
                const std::string tail =
                    std::string("/") + name_of(type) + "/" + name_of(isa) + "/" + std::to_string(batch);
                const auto add = [&](const std::string& name, auto function, Shape shape) {
                    benchmark::RegisterBenchmark((name + tail).c_str(), function, isa, shape, type, batch);
                };
                add("leaf:1:5:64@384", leaf_forest, {1, 5, 64, 384});
                add("neuron:1:11@768", neuron_forest, {1, 11, 0, 768});
                add("neuron:32:4@384", neuron_forest, {32, 4, 0, 384});
            }
        }
    }
    return true;
}();

}  // namespace
}  // namespace espalier::bench
