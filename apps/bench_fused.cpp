// espalier bench fused: a run of feed-forward layers without attention, one after another and fused into one
// (FFN Fusion, arXiv 2503.18908), in a random-weight model. The paper's own gain, on GPUs: 1.12x for the
// whole model.
#include <cstdio>

#include "apps/bench.h"
#include "apps/ffn_spec.h"
#include "apps/fuse/fuse.h"
#include "apps/fuse/report.h"
#include "apps/synthetic.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string synthetic, ffn, layers;
    uint32_t vocabulary = 1024;
    double seconds = 3;
    CommonOptions common;
};

// All layers but those outside `run` keep their attention.
void remove_attention(Import& import, const BlockRange& run) {
    for (uint32_t b = run.first; b <= run.last; ++b) {
        BlockSpec& block = import.spec.blocks[b];
        const BlockSpec without{.first_part = block.first_part, .part_count = block.part_count};
        block = without;
        const std::string prefix = "blocks." + std::to_string(b) + ".attention.";
        std::erase_if(import.tensors, [&](const FloatTensor& t) { return t.name.starts_with(prefix); });
    }
}

int bench_fused(const Options& options) {
    SyntheticShape shape = shape_named(options.synthetic);
    shape.vocabulary = options.vocabulary;
    const auto parts = parse_ffn(options.ffn.empty() ? shape.usual_ffn() : options.ffn);
    BlockRange run{0, shape.blocks - 1};
    if (!options.layers.empty()) {
        const auto ranges = parse_ranges("--layers", options.layers);
        if (ranges.size() != 1)
            throw Error(Status::invalid_argument, "--layers: expected one range, found %zu", ranges.size());
        run = ranges[0];
    }
    require_cpu(options.common, "bench fused");
    ModelOptions inner = model_options(options.common);
    if (inner.precision.empty()) inner.precision = "f32";
    const Precision precision = precision_named(std::string(inner.precision));
    auto import = synthetic_import(shape, parts, 1);
    const FusePlan plan{{}, {run}, {}};
    if (run.first > run.last || run.last >= shape.blocks || run.size() < 2)
        throw Error(Status::invalid_argument, "--layers: expected two layers or more of 0 to %u, found %s",
                    shape.blocks - 1, options.layers.empty() ? "fewer" : options.layers.c_str());
    remove_attention(*import, run);
    const AlignedBytes apart = model_to_memory(import->spec, store(*import, precision));
    const auto source = std::make_shared<const SourceModel>(ModelFile::from_memory(apart.span()));
    const auto fused_import = fuse_model(source, plan);
    const AlignedBytes together = model_to_memory(fused_import->spec, store_fused(*fused_import, *source));
    const auto before = Model::from_memory(apart.span(), inner),
               after = Model::from_memory(together.span(), inner);
    const Comparison comparison =
        compare_models(*before, *after, nullptr, {options.common.threads, options.seconds});
    Json j{{"synthetic", options.synthetic},
           {"layers", range_text(run)},
           {"ffn", ffn_text(parts)},
           {"fused_ffn", ffn_text(after->spec().parts_of(after->spec().blocks[run.first]))},
           {"precision", precision_name(before->precision())},
           {"threads", options.common.threads},
           {"isa", name_of(before->kernels().isa)},
           {"backend", before->backend().name()},
           {"apart", comparison.before},
           {"fused", comparison.after}};
    for (const char* key : {"prefill_ms", "decode_ms", "encode_ms"}) {
        if (comparison.before.contains(key))
            j[std::string(key).substr(0, std::string(key).size() - 3) + "_ratio"] =
                comparison.before[key].get<double>() / comparison.after[key].get<double>();
    }
    if (options.common.json) {
        print_json(j);
        return 0;
    }
    std::printf(
        "%s, layers %s without attention: %s apart (before), %s fused (after); %s, %s, dense by %s, %d "
        "thread%s\n",
        options.synthetic.c_str(), range_text(run).c_str(), ffn_text(parts).c_str(),
        j["fused_ffn"].get<std::string>().c_str(), precision_name(before->precision()),
        name_of(before->kernels().isa), before->backend().name(), options.common.threads,
        options.common.threads == 1 ? "" : "s");
    print_comparison(comparison);
    return 0;
}

}  // namespace

void add_bench_fused(CLI::App& bench, Runner& run) {
    auto* command = bench.add_subcommand("fused",
                                         "Layers without attention one after another, against the same fused "
                                         "into one: random weights, new ids "
                                         "every call");
    auto options = std::make_shared<Options>();
    command->add_option("--synthetic", options->synthetic, "A shape: minilm, bert-base or llama-H-L")
        ->required();
    command->add_option("--ffn", options->ffn,
                        "Feed-forward parts of every layer (default: the shape's own)");
    command->add_option("--layers", options->layers, "The run, A-B (default: all layers)");
    command
        ->add_option("--vocabulary", options->vocabulary,
                     "Words: a real vocabulary's output matrix would be most of a small model's time")
        ->check(CLI::Range(16u, 1u << 20))
        ->capture_default_str();
    command->add_option("--seconds", options->seconds, "Time for each model")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return bench_fused(*options); }; });
}

}  // namespace espalier
