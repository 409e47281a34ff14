// espalier index: vectors of a text's lines. espalier search: the lines nearest to a query.
#include <chrono>
#include <cstdio>

#include "apps/command.h"
#include "apps/importers/json.h"
#include "apps/lines.h"
#include "apps/search.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string model, index, texts;
    std::vector<std::string> queries;
    size_t k = 10;
    CommonOptions common;
};

int index(const Options& options) {
    require_cpu(options.common, "index");
    const auto model = open_model(options.model, options.common);
    const std::string text = read_text(options.texts);
    const auto start = std::chrono::steady_clock::now();
    const Indexed done = write_index(*model, text, options.index, options.common.threads);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                 rate = static_cast<double>(done.lines - done.resumed) / seconds;
    if (options.common.json) {
        print_json({{"lines", done.lines},
                    {"resumed", done.resumed},
                    {"seconds", seconds},
                    {"lines_per_second", rate}});
    } else {
        std::printf("%s: %zu lines, %zu of them from a stopped run, in %.1f s (%.0f lines a second)\n",
                    options.index.c_str(), done.lines, done.resumed, seconds, rate);
    }
    return 0;
}

// The index must be of these lines, and of this model where its label is there.
void check_index(const Options& options, const Model& model, std::string_view text, size_t lines,
                 const Matrix& index) {
    if (index.columns != model.spec().hidden || index.rows != lines)
        throw Error(Status::invalid_argument, "%s: expected [%zu lines, %u], found [%llu, %llu]",
                    options.index.c_str(), lines, model.spec().hidden,
                    static_cast<unsigned long long>(index.rows),
                    static_cast<unsigned long long>(index.columns));
    const std::string path = options.index + ".json";
    if (!JsonFile::exists(path)) return;
    const JsonFile label(path);
    const Json own = index_label(model, text, lines);
    for (const char* key : {"model", "text"}) {
        if (label.text(key) != own[key].get<std::string>())
            throw Error(Status::invalid_argument, "%s: made of another %s (%s): expected %s, found %s",
                        options.index.c_str(), key, path.c_str(), own[key].get<std::string>().c_str(),
                        label.text(key).c_str());
    }
}

int search(const Options& options) {
    require_cpu(options.common, "search");
    const auto model = open_model(options.model, options.common);
    const std::string text = read_text(options.texts);
    const auto lines = lines_of(text);
    const Matrix matrix = read_npy(options.index);
    check_index(options, *model, text, lines.size(), matrix);
    ContextOptions inner;
    inner.threads = options.common.threads;
    Context context(*model, inner);
    const auto use = [&](const TextInput& input) {
        const auto tokens = context.tokenize(input.text, input.pair);
        for (const Hit& hit : nearest(matrix, context.embed(tokens.batch()), options.k)) {
            const std::string line(lines[hit.line]);
            if (options.common.json) {
                print_json({{"query", std::string(input.text)},
                            {"line", hit.line + 1},
                            {"cosine", hit.cosine},
                            {"text", line}});
            } else {
                const unsigned long long number = hit.line + 1;
                std::printf("%.4f\t%llu\t%s\n", static_cast<double>(hit.cosine), number, line.c_str());
            }
        }
        if (options.queries.empty()) std::fflush(stdout);
    };
    const auto bad = [&](const std::string& message) {
        std::fprintf(stderr, "espalier: %s\n", message.c_str());
        if (options.common.json) print_json({{"error", message}});
    };
    return for_each_text(options.queries, use, bad) ? 0 : 1;
}

}  // namespace

void add_index(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("index", "Vectors of a text's lines, as a NumPy file for search");
    auto options = std::make_shared<Options>();
    command->add_option("MODEL", options->model, "A model file")->required();
    command->add_option("TEXTFILE", options->texts, "A text a line")->required();
    command
        ->add_option("-o,--output", options->index,
                     "INDEX.npy to write; a stopped run is gone on with by the same command")
        ->required();
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return index(*options); }; });
}

void add_search(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("search", "The lines nearest to a query: cosine, line, text; exact");
    auto options = std::make_shared<Options>();
    command->add_option("MODEL", options->model, "The model that the index was made with")->required();
    command->add_option("INDEX", options->index, "What index wrote")->required();
    command->add_option("TEXTFILE", options->texts, "The text that it was made of")->required();
    command->add_option("QUERY", options->queries, "Queries (default: lines of stdin)");
    command->add_option("-k,--nearest", options->k, "How many lines")
        ->check(CLI::Range(size_t{1}, size_t{1} << 20))
        ->capture_default_str();
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return search(*options); }; });
}

}  // namespace espalier
