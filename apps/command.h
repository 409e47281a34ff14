// What the subcommands share: common options, opening a model, output.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apps/describe.h"
#include "runtime/context.h"
#include "runtime/model.h"

namespace espalier {

struct CommonOptions {
    int threads = 1;
    std::string isa, backend, device = "cpu", precision;
    bool no_mmap = false, huge_pages = false;
    bool json = false;
};

// Adds --threads, --isa, --backend, --device, --precision, --no-mmap, --huge-pages and, if wanted, --json.
void add_common(CLI::App& command, CommonOptions& options, bool json);

std::unique_ptr<Model> open_model(const std::string& path, const CommonOptions& options);
ModelOptions model_options(const CommonOptions& options);
// Valid as long as the options.
ContextOptions context_options(const CommonOptions& options);
// For commands whose contexts are the CPU's alone: an error where --device says another.
void require_cpu(const CommonOptions& options, const char* command);

// One line to stdout.
void print_json(const Json& value);

// The JSON library asks for memory in destructors, where a refusal can only end the program: after this it
// ends as an error does, with one line and exit status 1.
void end_as_an_error_without_memory();

// "0.1.0", the commit where known.
std::string version_text();

// A subcommand registers itself, and sets `run` to what main calls if it was chosen; run returns the exit
// status.
using Runner = std::function<int()>;
void add_convert(CLI::App& app, Runner& run);
void add_fuse(CLI::App& app, Runner& run);
void add_index(CLI::App& app, Runner& run);
void add_inspect(CLI::App& app, Runner& run);
void add_verify(CLI::App& app, Runner& run);
void add_classify(CLI::App& app, Runner& run);
void add_compare(CLI::App& app, Runner& run);
void add_embed(CLI::App& app, Runner& run);
void add_glue(CLI::App& app, Runner& run);
void add_routes(CLI::App& app, Runner& run);
void add_search(CLI::App& app, Runner& run);
void add_generate(CLI::App& app, Runner& run);
void add_perplexity(CLI::App& app, Runner& run);
void add_bench(CLI::App& app, Runner& run);

}  // namespace espalier
