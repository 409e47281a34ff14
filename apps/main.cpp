// The `espalier` command. Results go to stdout, everything else to stderr. Exit status: 0 good, 1 a bad model
// or input (one clear line), 2 wrong usage.
#include <cstdio>
#include <exception>

#include "apps/command.h"
#include "base/error.h"

int main(int argc, char** argv) {
    using namespace espalier;
    CLI::App app("Transformers whose feed-forward layers are trees.", "espalier");
    app.require_subcommand(1);
    app.set_version_flag("--version", version_text());
    app.set_help_all_flag("--help-all", "Help of all subcommands");
    Runner run;
    for (const auto add :
         {add_convert, add_inspect, add_verify, add_classify, add_embed, add_glue, add_routes, add_bench})
        add(app, run);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    int status = 0;
    try {
        status = run();
    } catch (const Error& error) {
        std::fprintf(stderr, "espalier: %s\n", error.what());
        status = 1;
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "espalier: out of memory\n");
        status = 1;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "espalier: internal error: %s\n", error.what());
        status = 1;
    }
    // A full disk or a closed pipe shows only here.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        std::fprintf(stderr, "espalier: cannot write to stdout\n");
        return 1;
    }
    return status;
}
