#include "apps/bench.h"

namespace espalier {

void add_bench(CLI::App& app, Runner& run) {
    auto* bench = app.add_subcommand("bench", "Measure");
    bench->require_subcommand(0, 1);
    auto options = std::make_shared<ReportOptions>();
    auto* report = bench->add_option("--report", options->path,
                                     "Run all benches; machine, build and results into this JSON file");
    bench
        ->add_option("--model", options->model,
                     "A model file for --report (default: a random one, MiniLM's size)")
        ->needs(report);
    bench->add_option("--seconds", options->seconds, "--report: time for each layer and model")
        ->check(CLI::Range(0.01, 60.0))
        ->capture_default_str()
        ->needs(report);
    add_bench_fused(*bench, run);
    add_bench_layer(*bench, run);
    add_bench_model(*bench, run);
    bench->callback([bench, options, &run] {
        const bool named = !bench->get_subcommands().empty();
        if (options->path.empty() && !named) throw CLI::RequiredError("fused, layer, model or --report");
        if (options->path.empty()) return;
        if (named) throw CLI::ExcludesError("--report", bench->get_subcommands()[0]->get_name());
        run = [options] { return write_report(*options); };
    });
}

}  // namespace espalier
