// espalier fuse: attention removed, feed-forward layers fused, blocks run beside each other (FFN Fusion,
// arXiv 2503.18908); what a text says of which, and what it costs.
#include <cstdio>
#include <filesystem>

#include "apps/command.h"
#include "apps/fuse/analysis.h"
#include "apps/fuse/fuse.h"
#include "apps/fuse/heat_map.h"
#include "apps/fuse/report.h"
#include "apps/lines.h"
#include "apps/progress.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string source, target, analyse, text, heat_map, drop, layers;
    size_t tokens = 4096, parallel = 0;
    double seconds = 1;
    bool automatic = false, pairs = false;
    CommonOptions common;

    bool chooses() const { return !drop.empty() || !layers.empty() || automatic || pairs || parallel > 0; }
    // A number alone is how many attentions to drop; layers are given as 1,3 or 2-2.
    bool counts() const { return !drop.empty() && drop.find_first_of(",-") == std::string::npos; }
    bool needs_analysis() const { return counts() || parallel > 0; }
};

std::string heat_map_path(const Options& options) {
    if (!options.heat_map.empty()) return options.heat_map;
    return std::filesystem::path(options.source).stem().string() + ".dependency.svg";
}

void write_heat_map(const Options& options, const Analysis& analysis) {
    const std::string path = heat_map_path(options);
    write_text(path, heat_map(analysis, std::filesystem::path(options.source).filename().string() + ", " +
                                            std::to_string(analysis.tokens) + " tokens"));
    std::fprintf(stderr, "espalier: heat map: %s\n", path.c_str());
}

Analysis analyse_model(const Options& options, Context& context, const TokenizedTexts& sample) {
    std::optional<Progress> progress;
    Analysis analysis = analyse(context, sample, [&](uint64_t done, uint64_t total) {
        if (!progress) progress.emplace("analysing (passes)", total);
        progress->advance(done > 0 ? 1 : 0);
    });
    progress.reset();
    write_heat_map(options, analysis);
    return analysis;
}

Json describe(const Analysis& analysis, Family family) {
    Json matrix = Json::array(), removals = Json::array();
    for (size_t i = 0; i < analysis.blocks; ++i) {
        Json row = Json::array();
        for (size_t j = 0; j < analysis.blocks; ++j)
            row.push_back(j > i ? Json(analysis.at(i, j)) : Json());
        matrix.push_back(std::move(row));
    }
    const bool decoder = family == Family::decoder;
    for (const auto& removal : analysis.removals)
        removals.push_back(
            {{"layer", removal.block}, {decoder ? "perplexity" : "embedding_distance", removal.cost}});
    Json j{{"tokens", analysis.tokens},
           {"dependency", std::move(matrix)},
           {"cosine", analysis.cosine},
           {"without_attention", std::move(removals)}};
    if (decoder) j["perplexity"] = analysis.perplexity;
    return j;
}

void print_analysis(const Analysis& a, Family family) {
    const bool decoder = family == Family::decoder;
    std::printf(
        "dependency over %llu tokens: how far what a block adds (column) turns without another (row)\n",
        static_cast<unsigned long long>(a.tokens));
    std::printf("%8s", "without");
    for (size_t j = 0; j < a.blocks; ++j)
        std::printf(" %6zu", j);
    for (size_t i = 0; i + 1 < a.blocks; ++i) {
        std::printf("\n%8zu", i);
        for (size_t j = 0; j < a.blocks; ++j)
            j > i ? std::printf(" %6.4f", a.at(i, j)) : std::printf(" %6s", "");
    }
    std::printf(
        "\n\n%8s %26s %s\n", "block", "cosine of input and output",
        decoder ? "perplexity without its attention" : "embeddings move without its attention by 1 - cos");
    size_t next = 0;
    for (size_t b = 0; b < a.blocks; ++b) {
        std::printf("%8zu %26.4f ", b, a.cosine[b]);
        const bool attends = next < a.removals.size() && a.removals[next].block == b;
        attends ? std::printf(decoder ? "%.4f\n" : "%.6f\n", a.removals[next++].cost) : std::printf("none\n");
    }
    if (decoder) std::printf("%8s %26s %.4f\n", "whole", "", a.perplexity);
    std::printf("\n");
}

FusePlan choose(const Options& options, const ModelSpec& spec, const std::optional<Analysis>& analysis) {
    FusePlan plan;
    if (options.counts()) {
        plan.dropped =
            cheapest_attentions(*analysis, parse_ranges("--drop-attention", options.drop)[0].first);
    } else if (!options.drop.empty()) {
        for (const BlockRange& range : parse_ranges("--drop-attention", options.drop)) {
            if (range.first > range.last || range.last >= spec.blocks.size())
                throw Error(Status::invalid_argument,
                            "--drop-attention: expected layers of 0 to %zu in ascending ranges, found %u-%u",
                            spec.blocks.size() - 1, range.first, range.last);
            for (uint32_t b = range.first; b <= range.last; ++b)
                plan.dropped.push_back(b);
        }
        const auto repeated = std::adjacent_find(plan.dropped.begin(), plan.dropped.end(),
                                                 [](uint32_t a, uint32_t b) { return a >= b; });
        if (repeated != plan.dropped.end())
            throw Error(Status::invalid_argument, "--drop-attention: layer %u stands in the list twice",
                        *repeated);
    }
    check_plan(spec, plan, options.pairs);
    if (!options.layers.empty()) {
        plan.fused = parse_ranges("--layers", options.layers);
    } else if (options.automatic || options.pairs) {
        plan.fused = automatic_runs(spec, plan, options.automatic, options.pairs);
    }
    if (options.parallel > 0)
        plan.parallel = parallel_windows(spec, plan, analysis->dependency, options.parallel);
    check_plan(spec, plan, options.pairs);
    if (plan.empty())
        throw Error(Status::invalid_argument,
                    "%s: nothing to fuse: no two layers in a row that may (--drop-attention makes some)",
                    options.source.c_str());
    if ((options.automatic || options.pairs) && plan.fused.empty())
        std::fprintf(stderr, "espalier: no run of layers is long enough to be fused\n");
    return plan;
}

void write_fused(const Options& options, const FusePlan& plan) {
    const auto source = std::make_shared<const SourceModel>(options.source);
    const auto import = fuse_model(source, plan);
    import->spec.producer = import->keep(version_text());
    std::optional<Progress> progress;
    write_model(options.target.c_str(), import->spec, store_fused(*import, *source),
                [&, before = uint64_t{0}](uint64_t done, uint64_t total) mutable {
                    if (!progress) progress.emplace("writing (bytes)", total);
                    progress->advance(done - before);
                    before = done;
                });
}

Json ranges_json(const std::vector<BlockRange>& ranges) {
    Json j = Json::array();
    for (const BlockRange& range : ranges)
        j.push_back({range.first, range.last});
    return j;
}

void print_plan(const FusePlan& plan) {
    const auto line = [](const char* what, const std::vector<BlockRange>& ranges) {
        if (ranges.empty()) return;
        std::printf("%s", what);
        for (const BlockRange& range : ranges)
            std::printf(" %s", range_text(range).c_str());
        std::printf("\n");
    };
    std::vector<BlockRange> dropped;
    for (const uint32_t b : plan.dropped)
        dropped.push_back({b, b});
    line("attention removed from layers", dropped);
    line("feed-forward layers fused:", plan.fused);
    line("layers beside each other:", plan.parallel);
}

// Writes the fused model, opens it as a stranger would, and compares.
Comparison make_fused(const Options& options, const FusePlan& plan, const Model& model,
                      const std::optional<TokenizedTexts>& sample) {
    write_fused(options, plan);
    const auto fused = open_model(options.target, options.common);
    fused->file().verify_payload();
    return compare_models(model, *fused, sample ? &*sample : nullptr,
                          {options.common.threads, options.seconds});
}

int run_fuse(const Options& options) {
    require_cpu(options.common, "fuse");
    const auto model = open_model(options.source, options.common);
    const ModelSpec& spec = model->spec();
    if (options.parallel > 0 && spec.norm_placement != NormPlacement::pre)
        throw Error(
            Status::unsupported,
            "%s: --parallel: expected a model with norms in front of its sublayers, found them behind",
            options.source.c_str());
    // What needs no analysis is found wrong before the time that one takes.
    std::optional<FusePlan> plan;
    if (options.chooses() && !options.needs_analysis()) plan = choose(options, spec, std::nullopt);
    ContextOptions inner;
    inner.threads = options.common.threads;
    Context context(*model, inner);
    const std::string& text_file = options.analyse.empty() ? options.text : options.analyse;
    std::optional<TokenizedTexts> sample;
    if (!text_file.empty()) sample = sample_of(context, read_text(text_file), text_file, options.tokens);
    std::optional<Analysis> analysis;
    if (!options.analyse.empty()) analysis = analyse_model(options, context, *sample);
    if (options.needs_analysis()) plan = choose(options, spec, analysis);
    Json j{{"file", options.source}};
    if (analysis) j["analysis"] = describe(*analysis, spec.family);
    if (analysis && !options.common.json) print_analysis(*analysis, spec.family);
    if (plan) {
        j["dropped"] = plan->dropped;
        j["fused"] = ranges_json(plan->fused);
        j["parallel"] = ranges_json(plan->parallel);
        if (!options.common.json) print_plan(*plan);
    }
    if (plan && !options.target.empty()) {
        const Comparison comparison = make_fused(options, *plan, *model, sample);
        j["output"] = options.target;
        j["before"] = comparison.before;
        j["after"] = comparison.after;
        if (comparison.embedding_cosine) j["embedding_cosine"] = *comparison.embedding_cosine;
        if (!options.common.json) print_comparison(comparison);
    }
    if (options.common.json) print_json(j);
    return 0;
}

// What the parser cannot see of one option alone.
void check_usage(const Options& options) {
    if (options.counts() && options.analyse.empty())
        throw CLI::ValidationError(
            "--drop-attention " + options.drop,
            "expected --analyse TEXTFILE, which says whose removal costs least (layers are "
            "given as 1,3 or 2-2)");
    if (options.parallel > 0 && options.analyse.empty())
        throw CLI::ValidationError("--parallel",
                                   "expected --analyse TEXTFILE, which says what depends on what");
    if (!options.chooses() && !options.target.empty())
        throw CLI::ValidationError("--output",
                                   "expected --drop-attention, --layers, --auto, --pairs or --parallel");
    if (!options.chooses() && options.analyse.empty())
        throw CLI::RequiredError(
            "--analyse, or what to fuse (--drop-attention, --layers, --auto, --pairs, --parallel)");
    if (options.chooses() && options.target.empty() && options.analyse.empty())
        throw CLI::RequiredError("--output");
    if (!options.target.empty() && options.target == options.source)
        throw CLI::ValidationError("--output", "expected another file than the one that is read");
}

}  // namespace

void add_fuse(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("fuse",
                                       "Remove attention and fuse feed-forward layers (FFN Fusion); say what "
                                       "that costs. Layers count from 0");
    auto options = std::make_shared<Options>();
    command->add_option("IN", options->source, "A model file")->required();
    command->add_option("-o,--output", options->target, "The fused model to write");
    auto* analyse =
        command->add_option("--analyse", options->analyse,
                            "Measure on this text how blocks depend on each other, and what each attention "
                            "is worth");
    command->add_option("--text", options->text, "Compare the two models on this text, without analysing")
        ->excludes(analyse);
    command->add_option("--tokens", options->tokens, "Tokens of the text that are used, about")
        ->check(CLI::Range(size_t{2}, size_t{1} << 24))
        ->capture_default_str();
    command->add_option("--heat-map", options->heat_map,
                        "Where --analyse draws (default: IN's name.dependency.svg)");
    command->add_option(
        "--drop-attention", options->drop,
        "Layers that lose their attention (1,3,5 or 4-9), or how many: those that cost least");
    auto* layers =
        command->add_option("--layers", options->layers, "Fuse the feed-forward layers of A-B[,C-D…]");
    command
        ->add_flag("--auto", options->automatic,
                   "Fuse every run of layers without attention, but the last of each, as the paper does")
        ->excludes(layers);
    command->add_flag(
        "--pairs", options->pairs,
        "A run also takes the feed-forward layer of the block with attention before it; without "
        "--layers and --auto: every run, whole");
    command
        ->add_option(
            "--parallel", options->parallel,
            "Run up to four full blocks beside each other where they depend least on each other: N windows")
        ->expected(0, 1)
        ->default_str("1")
        ->check(CLI::Range(size_t{1}, size_t{4096}));
    command->add_option("--seconds", options->seconds, "Timing of each model")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    add_common(*command, options->common, true);
    command->callback([options, &run] {
        check_usage(*options);
        run = [options] { return run_fuse(*options); };
    });
}

}  // namespace espalier
