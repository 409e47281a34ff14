// espalier embed: a JSON array for each text.
#include <charconv>
#include <cmath>
#include <cstdio>

#include "apps/command.h"
#include "apps/lines.h"

namespace espalier {
namespace {

struct Options {
    std::string file;
    std::vector<std::string> texts;
    CommonOptions common;
};

// The shortest decimal that reads back as the same float.
void print_array(std::span<const float> values) {
    std::string line = "[";
    for (size_t i = 0; i < values.size(); ++i) {
        char number[32] = "null";  // JSON knows no NaN and no infinity
        const auto end = !std::isfinite(values[i])
                             ? number + 4
                             : std::to_chars(number, number + sizeof(number), values[i]).ptr;
        line.append(i > 0 ? ", " : "").append(number, end);
    }
    std::printf("%s]\n", line.c_str());
}

int embed(const Options& options) {
    const auto model = open_model(options.file, options.common);
    Context context(*model, context_options(options.common));
    const auto use = [&](const TextInput& input) {
        const auto tokens = context.tokenize(input.text, input.pair);
        print_array(context.embed(tokens.batch()));
        if (options.texts.empty()) std::fflush(stdout);
    };
    const auto bad = [&](const std::string& message) {
        std::fprintf(stderr, "espalier: %s\n", message.c_str());
        print_json({{"error", message}});
    };
    return for_each_text(options.texts, use, bad) ? 0 : 1;
}

}  // namespace

void add_embed(CLI::App& app, Runner& run) {
    auto* command =
        app.add_subcommand("embed", "Vectors of texts: arguments, or lines of stdin; a JSON array each");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file")->required();
    command->add_option("TEXT", options->texts, "Texts (default: lines of stdin)");
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return embed(*options); }; });
}

}  // namespace espalier
