// espalier generate, espalier perplexity: what a decoder writes, and how well it foresees a text.
#include "runtime/generate.h"

#include <cstdio>

#include "apps/command.h"
#include "apps/lines.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string file, prompt, text_file;
    GenerateOptions generate;
    uint32_t window = 0;
    CommonOptions common;
};

ContextOptions context_options(const Model& model, const Options& options) {
    if (options.window > model.spec().max_positions)
        throw Error(Status::invalid_argument,
                    "--window: expected at most %u (the model's positions), found %u",
                    model.spec().max_positions, options.window);
    ContextOptions inner = espalier::context_options(options.common);
    inner.max_tokens = options.window;
    return inner;
}

struct Written {
    bool json = false;
    std::string text;
    std::vector<int32_t> ids;
};

// Each piece as soon as it is there; with --json all at the end.
bool write_piece(void* user, int32_t id, std::string_view text) {
    auto* written = static_cast<Written*>(user);
    if (written->json) {
        written->text.append(text);
        written->ids.push_back(id);
        return true;
    }
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return std::ferror(stdout) == 0;  // nobody reads on
}

int run_generate(const Options& options) {
    require_utf8(options.prompt, "--prompt");
    const auto model = open_model(options.file, options.common);
    Context context(*model, context_options(*model, options));
    Written written{options.common.json, {}, {}};
    const Generation result = generate(context, options.prompt, options.generate, {write_piece, &written});
    if (options.common.json) {
        print_json({{"text", written.text},
                    {"ids", written.ids},
                    {"prompt_tokens", result.prompt_tokens},
                    {"tokens", result.tokens},
                    {"stop", name_of(result.stop)},
                    {"window", context.decoder().window()},
                    {"cache_bytes", context.decoder().cache_bytes()}});
        return 0;
    }
    std::printf("\n");
    if (result.stop == Stop::window_full)
        std::fprintf(stderr,
                     "espalier: stopped: the window of %zu tokens is full (%u of the prompt, %u new)\n",
                     context.decoder().window(), result.prompt_tokens, result.tokens);
    return 0;
}

int run_perplexity(const Options& options) {
    const std::string text = read_text(options.text_file);
    const auto model = open_model(options.file, options.common);
    Context context(*model, context_options(*model, options));
    const Perplexity result = perplexity(context, text);
    if (options.common.json) {
        print_json({{"perplexity", result.perplexity},
                    {"tokens", result.tokens},
                    {"window", result.window},
                    {"windows", result.windows}});
    } else {
        std::printf("perplexity %.4f over %llu tokens in %llu windows of %u\n", result.perplexity,
                    static_cast<unsigned long long>(result.tokens),
                    static_cast<unsigned long long>(result.windows), result.window);
    }
    return 0;
}

void add_window(CLI::App& command, Options& options) {
    command
        .add_option("--window", options.window,
                    "Tokens of a sequence at most (default: the model's positions, 4096 at most)")
        ->check(CLI::Range(1u, 1u << 24));
}

}  // namespace

void add_generate(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("generate", "A decoder's continuation of a prompt, as it is written");
    auto options = std::make_shared<Options>();
    SamplerOptions& sampler = options->generate.sampler;
    command->add_option("FILE", options->file, "A model file")->required();
    command->add_option("--prompt", options->prompt, "The text to continue (default: none)");
    command
        ->add_option("--max-tokens", options->generate.max_tokens,
                     "New tokens at most (default: until the end token, or the window is full)")
        ->check(CLI::Range(1u, 1u << 24));
    command
        ->add_option("--temperature", sampler.temperature,
                     "0: the likeliest token each time; higher: more varied")
        ->check(CLI::Range(0.0, 1000.0))
        ->capture_default_str();
    command->add_option("--top-k", sampler.top_k, "Draw from the K likeliest tokens (default: all)");
    command
        ->add_option("--top-p", sampler.top_p, "Draw from the likeliest tokens of this probability together")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    command->add_option("--seed", sampler.seed, "The same seed draws the same tokens")->capture_default_str();
    add_window(*command, *options);
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return run_generate(*options); }; });
}

void add_perplexity(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("perplexity", "How well a decoder foresees a text");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file")->required();
    command->add_option("TEXT", options->text_file, "A text file")->required();
    add_window(*command, *options);
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return run_perplexity(*options); }; });
}

}  // namespace espalier
