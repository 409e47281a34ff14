// The `espalier` command. Results go to stdout, everything else to stderr. Exit status: 0 good, 1 a bad model
// or input (one clear line), 2 wrong usage.
#include <cstdio>
#include <exception>

#include "apps/command.h"
#include "base/error.h"

namespace espalier {
namespace {

int run_command(int argc, char** argv) {
    CLI::App app("Transformers whose feed-forward layers are trees.", "espalier");
    app.require_subcommand(1);
    app.set_version_flag("--version", version_text());
    app.set_help_all_flag("--help-all", "Help of all subcommands");
    Runner run;
    for (const auto add : {add_convert, add_fuse, add_inspect, add_verify, add_classify, add_embed,
                           add_compare, add_glue, add_routes, add_generate, add_perplexity, add_bench})
        add(app, run);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    return run();
}

int fail(const char* kind, const char* message) {
    std::fprintf(stderr, "espalier: %s%s\n", kind, message);
    return 1;
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
    int status = 0;
    espalier::end_as_an_error_without_memory();
    try {
        status = espalier::run_command(argc, argv);
    } catch (const espalier::Error& error) {
        status = espalier::fail("", error.what());
    } catch (const std::bad_alloc&) {
        status = espalier::fail("out of memory", "");
    } catch (const std::exception& error) {
        status = espalier::fail("internal error: ", error.what());
    }
    // A full disk or a closed pipe shows only here.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
        status = espalier::fail("cannot write to stdout", "");
    return status;
}
