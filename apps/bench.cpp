#include "apps/bench.h"

namespace espalier {

void add_bench(CLI::App& app, Runner& run) {
    auto* bench = app.add_subcommand("bench", "Measure");
    bench->require_subcommand(1);
    add_bench_fused(*bench, run);
    add_bench_layer(*bench, run);
    add_bench_model(*bench, run);
}

}  // namespace espalier
