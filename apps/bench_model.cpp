// espalier bench model: latency of whole models, token ids in, last hidden states out. Several models are
// timed alternately in one run, in turns, so that a machine that drifts does not favour one of them.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <sstream>

#include "apps/bench.h"
#include "apps/bench_model.h"
#include "apps/clock.h"
#include "apps/ffn_spec.h"
#include "apps/model_work.h"
#include "apps/progress.h"
#include "apps/quantile.h"
#include "apps/synthetic.h"
#include "base/error.h"

namespace espalier {
namespace {

using Options = ModelBench;

// One model on the bench.
class Subject {
   public:
    Subject(std::string name, std::unique_ptr<Model> model, double load_ms)
        : name_(std::move(name)), owned_(std::move(model)), model_(owned_.get()), load_ms_(load_ms) {}
    Subject(std::string name, SyntheticModel synthetic)
        : name_(std::move(name)),
          synthetic_(std::move(synthetic)),
          model_(synthetic_->model.get()),
          load_ms_(synthetic_->load_ms) {}

    void prepare(const Options& options) {
        const uint32_t behind = is_decoder() ? next_tokens : 0;
        const uint32_t positions = std::max(model_->spec().max_positions, behind) - behind;
        if (options.ids > positions)
            throw Error(Status::invalid_argument,
                        "--ids: expected at most %u (the model's positions%s), found %u", positions,
                        behind > 0 ? ", less the tokens timed behind them" : "", options.ids);
        constexpr uint64_t most = 1u << 24;  // a context's cap
        if (uint64_t{options.ids} * options.batch > most)
            throw Error(Status::invalid_argument,
                        "--ids, --batch: expected at most %llu tokens in all, found %llu",
                        static_cast<unsigned long long>(most),
                        static_cast<unsigned long long>(uint64_t{options.ids} * options.batch));
        if (is_decoder() && options.batch > 1)
            throw Error(Status::invalid_argument, "--batch: expected 1 (a decoder's sequence), found %u",
                        options.batch);
        ContextOptions inner = espalier::context_options(options.common);
        inner.max_tokens = options.ids * options.batch + (is_decoder() ? next_tokens : 0);
        inner.max_sequences = options.batch;
        context_ = std::make_unique<Context>(*model_, inner);
        ids_.resize(options.ids * options.batch);
        offsets_.assign(1, 0);
        for (uint32_t s = 1; s <= options.batch; ++s)
            offsets_.push_back(s * options.ids);
        first_ms_ = call();
    }

    bool is_decoder() const { return model_->spec().family == Family::decoder; }

    // New ids, then one timed call: all tokens at once. A decoder then takes some tokens more, one by one,
    // timed by themselves.
    double call() {
        for (size_t s = 0; s + 1 < offsets_.size(); ++s)
            random_ids(model_->spec(), state_,
                       std::span(ids_).subspan(offsets_[s], offsets_[s + 1] - offsets_[s]));
        const Batch batch{ids_, {}, offsets_};
        if (is_decoder()) return call_decoder();
        const auto start = Clock::now();
        context_->encode(batch);
        return milliseconds_since(start);
    }
    void record(double ms) {
        times_.push_back(ms);
        next_times_.insert(next_times_.end(), next_ms_.begin(), next_ms_.end());
    }
    double median() const { return quantile(times_, 0.5); }
    const Model& model() const { return *model_; }

    Json report(const Options& options, const Subject& baseline) const {
        const ModelSpec& spec = model_->spec();
        uint64_t stored = 0, active = 0, adds = 0;
        for (const PartSpec& part : spec.parts) {
            stored += part.stored_neurons();
            active += part.active_neurons();
        }
        for (const BlockSpec& block : spec.blocks)
            adds += multiply_adds(spec.parts_of(block), spec.hidden);
        Json j{{"model", name_},
               {"ffn", spec.blocks.empty() ? "none" : ffn_text(spec.parts_of(spec.blocks[0]))},
               {"ids", options.ids},
               {"batch", options.batch},
               {"threads", options.common.threads},
               {"median_ms", median()},
               {"p99_ms", quantile(times_, 0.99)},
               {"min_ms", quantile(times_, 0)},
               {"calls", times_.size()},
               {"tokens_per_second", 1000.0 * options.ids * options.batch / median()},
               {"ratio_to_first", median() / baseline.median()},
               {"load_ms", load_ms_},
               {"first_ms", first_ms_},
               {"peak_rss_mb", peak_rss_mb()},
               {"stored_neurons", stored},
               {"active_neurons", active},
               {"ffn_multiply_adds_per_token", adds},
               {"precision", precision_name(model_->precision())},
               {"isa", name_of(model_->kernels().isa)},
               {"backend", model_->backend().name()}};
        if (is_decoder()) j["decode_ms"] = quantile(next_times_, 0.5);
        add_work(j, options);
        return j;
    }

    // Of the tokens behind the last call's.
    const std::vector<double>& next_ms() const { return next_ms_; }
    uint64_t next_weight_bytes() const { return work_of(*model_, *context_, 1, 1).weight_bytes; }

    // What the last call had to do.
    void add_work(Json& j, const Options& options) const {
        const ModelWork work = work_of(*model_, *context_, options.batch, options.ids);
        j["multiply_adds"] = work.multiply_adds;
        j["weight_bytes"] = work.weight_bytes;
        j["distinct_leaves"] = distinct_leaves(*model_, *context_);
    }

   private:
    static constexpr uint32_t next_tokens = 8;

    double call_decoder() {
        Decoder& decoder = context_->decoder();
        decoder.clear();
        const auto start = Clock::now();
        decoder.append(ids_);
        const double ms = milliseconds_since(start);
        next_ms_.clear();
        for (size_t i = 0; i < next_tokens; ++i) {
            const auto between = Clock::now();
            decoder.append(std::span(ids_).subspan(i % ids_.size(), 1));
            next_ms_.push_back(milliseconds_since(between));
        }
        return ms;
    }

    static double peak_rss_mb() {
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        return static_cast<double>(usage.ru_maxrss) / 1024.0;
    }

    std::string name_;
    std::optional<SyntheticModel> synthetic_;
    std::unique_ptr<Model> owned_;
    const Model* model_;
    double load_ms_, first_ms_ = 0;
    std::unique_ptr<Context> context_;
    std::vector<int32_t> ids_;
    std::vector<uint32_t> offsets_;
    uint64_t state_ = 1;
    std::vector<double> times_, next_times_, next_ms_;
};

std::vector<Subject> make_subjects(const Options& options) {
    std::vector<Subject> subjects;
    SyntheticShape shape;
    if (!options.file.empty()) {
        const auto start = Clock::now();
        auto model = open_model(options.file, options.common);
        const double load_ms = milliseconds_since(start);
        shape = shape_of(model->spec());
        subjects.emplace_back(options.file, std::move(model), load_ms);
    } else {
        shape = shape_named(options.synthetic);
    }
    std::vector<std::string> specs = options.against;
    if (options.file.empty())
        specs.insert(specs.begin(), options.ffn.empty() ? shape.usual_ffn() : options.ffn);
    // Random models are stored in the precision that they run in, which is the first model's.
    ModelOptions inner = model_options(options.common);
    if (!subjects.empty()) inner.precision = precision_name(subjects[0].model().precision());
    if (inner.precision.empty()) inner.precision = "f32";
    const Precision precision = precision_named(std::string(inner.precision));
    for (const std::string& spec : specs) {
        const std::string name =
            (options.file.empty() ? options.synthetic : "same shape") + " " + spec + ", random";
        subjects.emplace_back(name, make_synthetic(shape, parse_ffn(spec), precision, 1, inner));
    }
    return subjects;
}

// Turns of about 50 ms. A turn's first call is not counted: it finds the other models' weights in the caches.
void time_in_turns(std::vector<Subject>& subjects, double seconds) {
    constexpr double turn_ms = 50;
    constexpr size_t fewest_calls = 20;
    const double budget_ms = seconds * 1000 * static_cast<double>(subjects.size());
    for (Subject& subject : subjects)
        subject.call();
    Progress progress("timing (ms)", static_cast<uint64_t>(budget_ms));
    const auto start = Clock::now();
    size_t calls = 0;
    while (milliseconds_since(start) < budget_ms || calls < fewest_calls) {
        const auto round = Clock::now();
        for (Subject& subject : subjects) {
            subject.call();
            const auto turn = Clock::now();
            do {
                subject.record(subject.call());
            } while (milliseconds_since(turn) < turn_ms);
        }
        ++calls;
        progress.advance(static_cast<uint64_t>(milliseconds_since(round)));
    }
}

void print_table(const std::vector<Json>& rows) {
    std::printf("%-44s %10s %9s %12s %8s\n", "model", "median ms", "p99 ms", "tokens/s", "ratio");
    for (const Json& row : rows) {
        std::printf("%-44s %10.3f %9.3f %12.0f %7.2fx\n", row["model"].get<std::string>().c_str(),
                    row["median_ms"].get<double>(), row["p99_ms"].get<double>(),
                    row["tokens_per_second"].get<double>(), row["ratio_to_first"].get<double>());
    }
    const Json& first = rows.front();
    std::printf("%u ids, batch %u, %d thread%s, %s, %s, dense by %s; ratio: time over the first row's\n",
                first["ids"].get<unsigned>(), first["batch"].get<unsigned>(), first["threads"].get<int>(),
                first["threads"].get<int>() == 1 ? "" : "s", first["precision"].get<std::string>().c_str(),
                first["isa"].get<std::string>().c_str(), first["backend"].get<std::string>().c_str());
    for (const Json& row : rows) {
        if (row.contains("decode_ms"))
            std::printf("one token more: %.3f ms, %s\n", row["decode_ms"].get<double>(),
                        row["model"].get<std::string>().c_str());
        if (row["distinct_leaves"].empty()) continue;
        std::printf("distinct leaves of the last call, by layer, %s:",
                    row["model"].get<std::string>().c_str());
        for (const auto& count : row["distinct_leaves"])
            std::printf(" %zu", count.get<size_t>());
        std::printf("\n");
    }
}

// For a driver that alternates us with another program: a line "LENGTH REPEATS" in, a JSON line out.
int serve(const Options& options) {
    Options now = options;
    auto subjects = make_subjects(options);
    uint32_t prepared = 0;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        uint32_t length = 0, repeats = 0;
        if (!(words >> length >> repeats) || length < 1 || repeats < 1) {
            print_json({{"error", "expected LENGTH REPEATS, found " + line}});
            std::fflush(stdout);
            continue;
        }
        now.ids = length;
        Json times = Json::array(), next_times = Json::array();
        if (prepared != length) subjects[0].prepare(now);
        prepared = length;
        for (uint32_t i = 0; i < repeats; ++i) {
            times.push_back(subjects[0].call());
            for (const double ms : subjects[0].next_ms())
                next_times.push_back(ms);
        }
        Json answer{
            {"ids", length}, {"batch", now.batch}, {"threads", now.common.threads}, {"ms", std::move(times)}};
        if (subjects[0].is_decoder()) {
            answer["decode_ms"] = std::move(next_times);
            answer["next_weight_bytes"] = subjects[0].next_weight_bytes();
        }
        subjects[0].add_work(answer, now);
        print_json(answer);
        std::fflush(stdout);
    }
    return 0;
}

int bench_model(const Options& options) {
    if (options.serve) return serve(options);
    const std::vector<Json> rows = time_models(options);
    if (!options.common.json) {
        print_table(rows);
        return 0;
    }
    for (const Json& row : rows)
        print_json(row);
    return 0;
}

}  // namespace

std::vector<Json> time_models(const ModelBench& options) {
    auto subjects = make_subjects(options);
    for (Subject& subject : subjects)
        subject.prepare(options);
    time_in_turns(subjects, options.seconds);
    std::vector<Json> rows;
    rows.reserve(subjects.size());
    for (const Subject& subject : subjects)
        rows.push_back(subject.report(options, subjects[0]));
    return rows;
}

void add_bench_model(CLI::App& bench, Runner& run) {
    auto* command = bench.add_subcommand(
        "model", "Latency of a model: ids in, last hidden states out; new random ids every call");
    auto options = std::make_shared<Options>();
    auto* file = command->add_option("FILE", options->file, "A model file");
    auto* synthetic = command
                          ->add_option("--synthetic", options->synthetic,
                                       "A random-weight model: minilm, bert-base or llama-H-L")
                          ->excludes(file);
    command
        ->add_option("--ffn", options->ffn,
                     "Its feed-forward parts, e.g. dense:64+leaf:1:5:64, neuron:32:4, none")
        ->needs(synthetic);
    command
        ->add_option("--against", options->against,
                     "Also time, alternately, the same shape with these parts and random weights")
        ->delimiter(',');
    command->add_option("--ids", options->ids, "Tokens of a sequence")
        ->check(CLI::Range(1u, 1u << 20))
        ->capture_default_str();
    command->add_option("--batch", options->batch, "Sequences of a call")
        ->check(CLI::Range(1u, 1u << 16))
        ->capture_default_str();
    command->add_option("--seconds", options->seconds, "Time for each model")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    command->add_flag("--serve", options->serve,
                      "Read lines LENGTH REPEATS, answer each with a JSON line of times");
    add_common(*command, options->common, true);
    command->get_option("--precision")
        ->description("Arithmetic (default: as FILE's weights are stored; f32 for random ones)");
    command->callback([options, file, synthetic, &run] {
        if (file->empty() && synthetic->empty()) throw CLI::RequiredError("FILE or --synthetic");
        run = [options] { return bench_model(*options); };
    });
}

}  // namespace espalier
