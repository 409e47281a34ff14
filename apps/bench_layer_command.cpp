// espalier bench layer: options, and the sweep over several of them into a CSV file.
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "apps/bench.h"
#include "apps/bench_layer.h"
#include "apps/ffn_spec.h"
#include "apps/progress.h"
#include "base/error.h"

namespace espalier {
namespace {

constexpr size_t largest_hidden = 65536, largest_batch = size_t{1} << 20, most_threads = 1024;

struct Options {
    LayerOptions layer;
    // What --sweep takes lists of.
    std::vector<std::string> ffn, batch{"1"}, precision{"f32"}, threads{"1"};
    bool sweep = false, json = false;
    std::string csv;
};

// Wrong usage, found after the parser is done with its own checks.
size_t number(const char* option, const std::string& word, size_t high) {
    size_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < 1 || value > high)
        throw CLI::ValidationError(
            option, "expected a number of 1 to " + std::to_string(high) + ", found '" + word + "'");
    return value;
}

void check_usage(const Options& options) {
    for (const std::string& word : options.batch)
        number("--batch", word, largest_batch);
    for (const std::string& word : options.threads)
        number("--threads", word, most_threads);
    if (options.sweep) {
        if (options.csv.empty()) throw CLI::ValidationError("--sweep", "expected --csv FILE as well");
        return;
    }
    if (!options.csv.empty()) throw CLI::ValidationError("--csv", "expected --sweep as well");
    const std::pair<const char*, size_t> lists[] = {{"--ffn", options.ffn.size()},
                                                    {"--batch", options.batch.size()},
                                                    {"--precision", options.precision.size()},
                                                    {"--threads", options.threads.size()}};
    for (const auto& [name, count] : lists) {
        if (count != 1) throw CLI::ValidationError(name, "expected one value (lists need --sweep)");
    }
}

std::vector<LayerOptions> combinations(const Options& options) {
    std::vector<LayerOptions> all;
    LayerOptions one = options.layer;
    for (const std::string& ffn : options.ffn) {
        one.ffn = ffn;
        for (const std::string& precision : options.precision) {
            one.precision = precision;
            for (const std::string& threads : options.threads) {
                one.threads = static_cast<int>(number("--threads", threads, most_threads));
                for (const std::string& batch : options.batch) {
                    one.batch = number("--batch", batch, largest_batch);
                    all.push_back(one);
                }
            }
        }
    }
    return all;
}

// The file's columns: keys of a result.
constexpr const char* columns[] = {"hidden",
                                   "ffn",
                                   "against",
                                   "batch",
                                   "precision",
                                   "threads",
                                   "isa",
                                   "routing",
                                   "supported",
                                   "forest_us",
                                   "dense_us",
                                   "dense_bound_us",
                                   "ratio",
                                   "ratio_to_bound",
                                   "equal_flops_us",
                                   "forest_p99_us",
                                   "dense_p99_us",
                                   "forest_cold_us",
                                   "dense_cold_us",
                                   "forest_ns_per_token",
                                   "dense_ns_per_token",
                                   "forest_gflops",
                                   "dense_gflops",
                                   "dense_peak_fraction",
                                   "bound_us",
                                   "bound_by",
                                   "bound_fraction",
                                   "flop_ratio",
                                   "distinct_leaves",
                                   "touched_rows"};

std::string csv_cell(const Json& result, const char* key) {
    if (!result.contains(key)) return "";
    const Json& value = result[key];
    return value.is_string() ? value.get<std::string>() : value.dump();
}

int sweep(const Options& options) {
    const auto all = combinations(options);
    for (const LayerOptions& one : all)
        parse_ffn(one.ffn);  // a bad word is better found before the hours than after
    std::FILE* file = std::fopen(options.csv.c_str(), "w");
    const auto failed = [&] {
        return Error(Status::io, "%s: cannot write: %s", options.csv.c_str(), std::strerror(errno));
    };
    if (file == nullptr) throw failed();
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> closer(file, std::fclose);
    for (const char* column : columns)
        std::fprintf(file, "%s%s", column == columns[0] ? "" : ",", column);
    std::fprintf(file, "\n");
    Progress progress("layers", all.size());
    for (const LayerOptions& one : all) {
        const Json result = bench_layer(one);
        require_verified(result);
        for (const char* column : columns)
            std::fprintf(file, "%s%s", column == columns[0] ? "" : ",", csv_cell(result, column).c_str());
        std::fprintf(file, "\n");
        if (std::fflush(file) != 0 || std::ferror(file) != 0) throw failed();
        if (options.json) print_json(result);
        progress.advance();
    }
    return 0;
}

int run_once(const Options& options) {
    const Json result = bench_layer(combinations(options).front());
    if (options.json) {
        print_json(result);
    } else {
        print_layer(result);
    }
    require_verified(result);
    return 0;
}

}  // namespace

void add_bench_layer(CLI::App& bench, Runner& run) {
    auto* command = bench.add_subcommand(
        "layer", "One tree layer against dense ones, alternately, on new random tokens every call");
    auto options = std::make_shared<Options>();
    LayerOptions& layer = options->layer;
    command->add_option("--hidden", layer.hidden, "Width of the layer's input and output")
        ->check(CLI::Range(size_t{1}, largest_hidden))
        ->capture_default_str();
    command
        ->add_option("--ffn", options->ffn,
                     "Its parts, e.g. neuron:1:11, dense:64+leaf:1:5:64 (leaf:TREES:DEPTH:WIDTH)")
        ->required()
        ->delimiter(',');
    command->add_option("--against", layer.against,
                        "dense:W (default: as many neurons as are stored), or bound: not timed, but what "
                        "reading its weights takes at the least");
    command->add_option("--batch", options->batch, "Tokens of a call")->delimiter(',')->capture_default_str();
    command->add_option("--precision", options->precision, "Of inputs, weights and products, on both sides")
        ->delimiter(',')
        ->check(CLI::IsMember({"f32", "bf16", "int8"}))
        ->capture_default_str();
    command->add_option("--threads", options->threads, "Threads of one call")
        ->delimiter(',')
        ->capture_default_str();
    command->add_option("--isa", layer.isa, "Instruction set (default: ESPALIER_ISA, else the best)")
        ->check(CLI::IsMember({"scalar", "avx2", "avx512", "neon"}));
    command->add_option("--backend", layer.backend, "Dense layers by oneDNN or by our own kernels")
        ->check(CLI::IsMember({"onednn", "native"}));
    command
        ->add_option("--routing", layer.routing,
                     "random tokens; same: all of a call take one way; distinct: as many leaves as can be")
        ->check(CLI::IsMember({"random", "same", "distinct"}))
        ->capture_default_str();
    command->add_option("--seconds", layer.seconds, "Time for each layer")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    command->add_flag("--huge-pages,!--no-huge-pages", layer.huge_pages,
                      "Weights and tokens of all sides in huge pages (default)");
    command->add_flag("--cold,!--no-cold", layer.cold, "Also time calls with evicted caches (default)");
    command->add_flag("--sweep", options->sweep,
                      "Every combination of comma lists of --ffn, --precision, --threads, --batch");
    command->add_option("--csv", options->csv, "Where --sweep writes (bench/plot_layer.py reads it)");
    command->add_flag("--json", options->json, "JSON to stdout");
    command->callback([options, &run] {
        check_usage(*options);
        run = [options] { return options->sweep ? sweep(*options) : run_once(*options); };
    });
}

}  // namespace espalier
