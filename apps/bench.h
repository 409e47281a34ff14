// The bench subcommands.
#pragma once

#include "apps/command.h"

namespace espalier {

void add_bench_model(CLI::App& bench, Runner& run);
void add_bench_fused(CLI::App& bench, Runner& run);
void add_bench_layer(CLI::App& bench, Runner& run);

struct ReportOptions {
    std::string path, model;
    double seconds = 1;
};
// bench --report: exit status. Throws Error.
int write_report(const ReportOptions& options);

}  // namespace espalier
