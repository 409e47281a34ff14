// espalier classify: a label, its probability and the text, for each text.
#include <cmath>
#include <cstdio>

#include "apps/command.h"
#include "apps/heads.h"
#include "apps/lines.h"

namespace espalier {
namespace {

struct Options {
    std::string file, head;
    std::vector<std::string> texts;
    CommonOptions common;
};

std::string joined(const TextInput& input) {
    std::string text(input.text);
    if (input.pair) text.append("\t").append(*input.pair);
    return text;
}

void print(const Options& options, const TextInput& input, const Decision& decision,
           const std::vector<float>& logits, bool truncated) {
    if (!options.common.json) {
        std::printf("%s\t%.6f\t%s\n", decision.label.c_str(), static_cast<double>(decision.value),
                    joined(input).c_str());
        return;
    }
    Json j{{"label", decision.label},
           {decision.regression ? "value" : "probability", decision.value},
           {"logits", logits},
           {"text", std::string(input.text)}};
    if (input.pair) j["pair"] = std::string(*input.pair);
    j["truncated"] = truncated;
    print_json(j);
}

int classify(const Options& options) {
    const auto model = open_model(options.file, options.common);
    const uint32_t head = head_named(*model, options.head);
    Context context(*model, context_options(options.common));
    const auto use = [&](const TextInput& input) {
        const auto tokens = context.tokenize(input.text, input.pair);
        const auto scores = context.score(tokens.batch(), head);
        print(options, input, decide(*model, head, scores), {scores.begin(), scores.end()}, tokens.truncated);
        if (options.texts.empty())
            std::fflush(stdout);  // a reader at the other end of a pipe waits for each line
    };
    const auto bad = [&](const std::string& message) {
        std::fprintf(stderr, "espalier: %s\n", message.c_str());
        if (options.common.json) {
            print_json({{"error", message}});
        } else {
            std::printf("error\tnan\t%s\n", message.c_str());
        }
    };
    return for_each_text(options.texts, use, bad) ? 0 : 1;
}

}  // namespace

void add_classify(CLI::App& app, Runner& run) {
    auto* command =
        app.add_subcommand("classify", "Label texts: arguments, or lines of stdin; a tab parts a pair");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file with a head")->required();
    command->add_option("TEXT", options->texts, "Texts (default: lines of stdin)");
    command->add_option("--head", options->head, "The head's name (default: the only one)");
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return classify(*options); }; });
}

}  // namespace espalier
