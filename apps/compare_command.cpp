// espalier compare: how far apart two model files are, layer by layer.
#include <cstdio>
#include <filesystem>

#include "apps/command.h"
#include "apps/compare.h"
#include "apps/lines.h"
#include "apps/progress.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string first, second, texts, plot, other_precision;
    size_t lines = 1000;
    CommonOptions common;
};

std::vector<std::string> sample_of(const Options& options) {
    std::vector<std::string> lines;
    const std::string all = read_text(options.texts);
    for (size_t begin = 0; begin < all.size() && lines.size() < options.lines;) {
        const size_t end = std::min(all.find('\n', begin), all.size());
        std::string line = all.substr(begin, end - begin);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (!line.empty()) lines.push_back(std::move(line));
        begin = end + 1;
    }
    if (lines.empty())
        throw Error(Status::invalid_argument, "%s: expected lines of text, found none",
                    options.texts.c_str());
    return lines;
}

std::string file_name(const std::string& path) {
    return std::filesystem::path(path).filename().string();
}

int compare(const Options& options) {
    CommonOptions other = options.common;
    if (!options.other_precision.empty()) other.precision = options.other_precision;
    require_cpu(options.common, "compare");
    const auto a = open_model(options.first, options.common), b = open_model(options.second, other);
    ModelComparison comparison(*a, *b, options.common.threads);
    const auto lines = sample_of(options);
    {
        Progress progress("comparing (texts)", lines.size());
        for (const std::string& line : lines) {
            const size_t tab = line.find('\t');
            const std::string_view whole = line;
            if (tab == std::string::npos) {
                comparison.add(whole, std::nullopt);
            } else {
                comparison.add(whole.substr(0, tab), whole.substr(tab + 1));
            }
            progress.advance(1);
        }
    }
    if (!options.plot.empty())
        write_text(
            options.plot,
            comparison.plot(file_name(options.first) + " (" + precision_name(a->precision()) + ") and " +
                            file_name(options.second) + " (" + precision_name(b->precision()) + ")"));
    if (options.common.json) {
        print_json(comparison.json());
    } else {
        comparison.print();
    }
    return 0;
}

}  // namespace

void add_compare(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand(
        "compare", "How far apart two encoders are: error by layer, equal leaves, cosine, labels");
    auto options = std::make_shared<Options>();
    command->add_option("A", options->first, "A model file: what errors are relative to")->required();
    command->add_option("B", options->second, "Another of the same vocabulary and hidden size")->required();
    command->add_option("TEXTFILE", options->texts, "Texts, one a line; a tab parts a pair (default: stdin)")
        ->default_val("/dev/stdin");
    command->add_option("--lines", options->lines, "How many of its lines are read")->capture_default_str();
    command->add_option("--plot", options->plot, "An SVG picture to write");
    command->add_option("--other-precision", options->other_precision, "Of B's arithmetic (default: as A's)")
        ->check(CLI::IsMember({"f32", "bf16", "int8"}));
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return compare(*options); }; });
}

}  // namespace espalier
