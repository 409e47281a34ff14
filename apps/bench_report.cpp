// espalier bench --report: this machine, this build and all benches in one JSON file, for whoever wants to
// tell others how fast a board is.
#include <cstdio>
#include <ctime>
#include <thread>

#include "apps/bench.h"
#include "apps/bench_layer.h"
#include "apps/bench_model.h"
#include "apps/clock.h"
#include "apps/energy.h"
#include "apps/ffn_spec.h"
#include "apps/lines.h"
#include "apps/machine.h"
#include "apps/progress.h"
#include "base/error.h"

namespace espalier {
namespace {

constexpr const char* precisions[] = {"f32", "bf16", "int8"};
// UltraFastBERT's layer, and the shipped model's; against the dense ones that they stand for.
struct Layer {
    size_t hidden;
    const char *ffn, *against;
};
constexpr Layer layers[] = {{768, "neuron:1:11", "dense:4095"}, {384, "dense:64+leaf:1:6:64", "dense:1536"}};
constexpr size_t layer_batches[] = {1, 64, 1024};
constexpr uint32_t lengths[] = {8, 32, 128};
constexpr const char *usual_shape = "minilm", *usual_ffn = "dense:64+leaf:1:6:64";
constexpr uint64_t usual_hidden = 384;

std::string time_of_day() {
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    char text[32] = "";
    if (gmtime_r(&now, &utc) != nullptr) std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
    return text;
}

// Once with one thread, once with all that the machine has.
std::vector<int> thread_counts() {
    const auto all = static_cast<int>(std::thread::hardware_concurrency());
    return all > 1 ? std::vector<int>{1, all} : std::vector<int>{1};
}

std::vector<LayerOptions> layer_benches(double seconds) {
    std::vector<LayerOptions> all;
    for (const Layer& layer : layers) {
        for (const char* precision : precisions) {
            for (const size_t batch : layer_batches) {
                LayerOptions one;
                one.hidden = layer.hidden;
                one.ffn = layer.ffn;
                one.against = layer.against;
                one.batch = batch;
                one.precision = precision;
                one.seconds = seconds;
                all.push_back(one);
            }
        }
    }
    return all;
}

// The dense layer of the same shape, one of the trees' multiply-adds, and none. model: null for the usual
// one.
std::vector<std::string> baselines(const Model* model) {
    std::vector<PartSpec> parts = parse_ffn(usual_ffn);
    uint64_t hidden = usual_hidden;
    if (model != nullptr) {
        const ModelSpec& spec = model->spec();
        hidden = spec.hidden;
        parts.clear();
        if (!spec.blocks.empty()) {
            const auto own = spec.parts_of(spec.blocks[0]);
            parts.assign(own.begin(), own.end());
        }
    }
    const uint64_t equal = multiply_adds(parts, hidden) / (2 * hidden);
    std::vector<std::string> all{"dense:" + std::to_string(4 * hidden)};
    if (equal > 0) all.push_back("dense:" + std::to_string(equal));
    all.emplace_back("none");
    return all;
}

std::vector<ModelBench> model_benches(const ReportOptions& options, const Model* model) {
    ModelBench one;
    one.file = options.model;
    if (model == nullptr) {
        one.synthetic = usual_shape;
        one.ffn = usual_ffn;
    }
    one.seconds = options.seconds;
    one.against = baselines(model);
    std::vector<ModelBench> all;
    for (const int threads : thread_counts()) {
        for (const char* precision : precisions) {
            for (const uint32_t ids : lengths) {
                one.common.threads = threads;
                one.common.precision = precision;
                one.ids = ids;
                all.push_back(one);
            }
        }
    }
    return all;
}

// What `bench` gives, and the energy that it took, all of the machine's, loading and preparing included.
template <class Bench>
Json measured(EnergyCounters& energy, const Bench& bench) {
    energy.start();
    const auto start = Clock::now();
    Json j{{"rows", bench()}};
    j["seconds"] = milliseconds_since(start) / 1000;
    if (energy.any()) j["joules"] = energy.joules_since_start();
    return j;
}

}  // namespace

int write_report(const ReportOptions& options) {
    EnergyCounters energy;
    Json report{{"report", 1},
                {"date", time_of_day()},
                {"machine", describe_machine()},
                {"build", describe_build()},
                {"energy", energy.describe()}};
    std::unique_ptr<Model> model;
    if (!options.model.empty()) {
        model = open_model(options.model, {});
        report["model"] = describe(*model);
        report["model"]["file"] = options.model;
    }
    const auto layers_left = layer_benches(options.seconds);
    const auto models_left = model_benches(options, model.get());
    model.reset();
    Progress progress("benches", layers_left.size() + models_left.size());
    for (const LayerOptions& one : layers_left) {
        report["layers"].push_back(measured(energy, [&] {
            const Json row = bench_layer(one);
            require_verified(row);
            return Json::array({row});
        }));
        progress.advance();
    }
    for (const ModelBench& one : models_left) {
        report["models"].push_back(measured(energy, [&] { return Json(time_models(one)); }));
        progress.advance();
    }
    progress.finish();
    report["machine"]["load_at_end"] = load_average();
    write_text(options.path, json_text(report) + "\n");
    std::fprintf(stderr, "espalier: written: %s\n", options.path.c_str());
    return 0;
}

}  // namespace espalier
