// espalier glue: the official metrics of a model over an official file.
#include <chrono>
#include <cmath>
#include <cstdio>

#include "apps/command.h"
#include "apps/glue/tsv.h"
#include "apps/heads.h"
#include "apps/lines.h"
#include "apps/progress.h"
#include "apps/runner.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string file, task, tsv, head, predictions, order = "sorted";
    uint32_t batch = 32;
    CommonOptions common;
};

struct Labels {
    std::vector<int> classes;
    std::vector<double> values;
};

// Labels as the model counts them.
void read_label(const Task& task, const Example& example, std::span<const std::string_view> names,
                const std::string& where, Labels& labels) {
    if (task.is_score()) {
        labels.values.push_back(example.score);
        return;
    }
    try {
        labels.classes.push_back(match_label(example.label, names));
    } catch (const Error& error) {
        throw Error(error.status(), "%s: %s", where.c_str(), error.what());
    }
}

// The model's names for the task's classes; the conventional ones where it has none.
std::vector<std::string_view> label_names(const Model& model, uint32_t head, const Task& task) {
    const auto own = model.spec().labels_of(model.spec().heads[head]);
    if (own.empty()) return {task.labels.begin(), task.labels.end()};
    return {own.begin(), own.end()};
}

double cosine(std::span<const float> a, std::span<const float> b) {
    double product = 0, squares_a = 0, squares_b = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        product += static_cast<double>(a[i]) * b[i];
        squares_a += static_cast<double>(a[i]) * a[i];
        squares_b += static_cast<double>(b[i]) * b[i];
    }
    const double norm = std::sqrt(squares_a * squares_b);
    return norm > 0 ? product / norm : 0;
}

class Evaluation {
   public:
    explicit Evaluation(const Options& options)
        : options_(options),
          task_(task_named(options.task)),
          model_(open_model(options.file, options.common)),
          context_(*model_, context_options()) {
        const auto head = head_for_task(*model_, task_, options.head);
        by_cosine_ = !head;
        head_ = head.value_or(0);
        if (!task_.is_score()) names_ = label_names(*model_, head_, task_);
    }

    int run() {
        const auto start = std::chrono::steady_clock::now();
        read();
        compute();
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (!options_.predictions.empty()) write_predictions();
        report(seconds);
        return 0;
    }

   private:
    ContextOptions context_options() const {
        ContextOptions inner = espalier::context_options(options_.common);
        inner.max_sequences = options_.batch * 2;  // a pair by cosine is two sequences
        // Room for 32 sentences of 64 tokens, and for one of any length.
        inner.max_tokens = std::max<uint32_t>(model_->spec().max_positions,
                                              std::min<uint32_t>(options_.batch * 64, 1u << 20));
        return inner;
    }

    void read() {
        TsvReader reader(task_, options_.tsv);
        for (Example example; reader.next(example);) {
            for (const std::string* text : {&example.a, &example.b}) {
                const size_t invalid = find_invalid_utf8(*text);
                if (invalid != std::string::npos)
                    throw Error(Status::invalid_argument,
                                "%s: expected UTF-8, found an ill-formed byte at %zu of a text",
                                reader.where().c_str(), invalid);
            }
            read_label(task_, example, names_, reader.where(), labels_);
            if (by_cosine_) {
                texts_.add(context_.tokenize(example.a, std::nullopt));
                texts_.add(context_.tokenize(example.b, std::nullopt));
            } else {
                texts_.add(context_.tokenize(
                    example.a, example.is_pair ? std::optional<std::string_view>(example.b) : std::nullopt));
            }
            ++rows_;
        }
    }

    void compute() {
        const size_t width = by_cosine_ ? model_->spec().hidden : model_->spec().heads[head_].outputs;
        outputs_.resize(texts_.size() * width);
        Progress progress(std::string(task_.name), texts_.size());
        for_each_batch(context_, texts_, options_.order == "sorted",
                       [&](const Batch& batch, std::span<const uint32_t> members) {
                           const auto values =
                               by_cosine_ ? context_.embed(batch) : context_.score(batch, head_);
                           count_hairlines(members);
                           for (size_t i = 0; i < members.size(); ++i)
                               std::copy_n(values.begin() + static_cast<ptrdiff_t>(i * width), width,
                                           outputs_.begin() + static_cast<ptrdiff_t>(members[i] * width));
                           progress.advance(members.size());
                       });
        for (size_t row = 0; row < rows_; ++row) {
            if (by_cosine_) {
                predicted_.values.push_back(cosine(output(2 * row, width), output(2 * row + 1, width)));
                continue;
            }
            const Decision decision = decide(*model_, head_, output(row, width));
            predicted_.classes.push_back(static_cast<int>(decision.index));
            predicted_.values.push_back(static_cast<double>(decision.value));
        }
    }

    // Sentences in which some walk passed a node closer than a rounding error can tell apart.
    void count_hairlines(std::span<const uint32_t> members) {
        const auto& forests = model_->prepared().blocks;
        std::vector<char> near(context_.tokens(), 0);
        for (const PreparedBlock& block : forests) {
            for (const PreparedPart& part : block.parts) {
                if (!part.spec->is_forest()) continue;
                const float* margin = context_.routes(part.forest).margin;
                for (size_t i = 0; i < near.size() * part.spec->trees; ++i)
                    near[i / part.spec->trees] |= margin[i] < hairline ? 1 : 0;
            }
        }
        size_t token = 0;
        for (const uint32_t member : members) {
            bool any = false;
            for (size_t i = 0; i < texts_.length(member); ++i)
                any = near[token++] != 0 || any;
            hairlines_ += any ? 1 : 0;
        }
    }

    std::span<const float> output(size_t text, size_t width) const {
        return std::span(outputs_).subspan(text * width, width);
    }

    // One line a row: the outputs, then the file's label. For comparing with other programs.
    void write_predictions() const {
        std::string lines;
        const auto add = [&](const char* format, auto value) {
            char text[512];  // a label may have 300 digits
            lines.append(text, static_cast<size_t>(std::snprintf(text, sizeof(text), format, value)));
        };
        const size_t width = by_cosine_ ? 0 : outputs_.size() / rows_;
        for (size_t row = 0; row < rows_; ++row) {
            if (by_cosine_) add("%.6f\t", predicted_.values[row]);
            for (size_t i = 0; i < width; ++i)
                add("%.6f\t", static_cast<double>(outputs_[row * width + i]));
            if (task_.is_score()) {
                add("%.3f\n", labels_.values[row]);
            } else {
                add("%d\n", labels_.classes[row]);
            }
        }
        write_text(options_.predictions, lines);
    }

    void report(double seconds) const {
        Json j{{"task", std::string(task_.name)}, {"n", rows_}, {"head", nullptr}};
        if (!by_cosine_) j["head"] = model_->head_name(head_);
        for (const Metric metric : task_.metrics)
            j[metric_name(metric)] = task_.is_score() ? measure(metric, predicted_.values, labels_.values)
                                                      : measure(metric, predicted_.classes, labels_.classes);
        j["sentences_per_second"] = static_cast<double>(texts_.size()) / seconds;
        j["tokens"] = texts_.tokens();
        j["truncated"] = texts_.truncated();
        j["isa"] = name_of(model_->kernels().isa);
        j["threads"] = options_.common.threads;
        j["hairlines"] = hairlines_;
        if (options_.common.json) return print_json(j);
        std::printf("%s: %zu rows", std::string(task_.name).c_str(), rows_);
        for (const Metric metric : task_.metrics)
            std::printf(", %s %.2f %%", metric_name(metric), 100 * j[metric_name(metric)].get<double>());
        const std::string by =
            by_cosine_ ? "cosine of embeddings" : std::string("head ") + model_->head_name(head_);
        std::printf(", %.0f sentences/s (%s, %s, %d threads)\n", j["sentences_per_second"].get<double>(),
                    by.c_str(), name_of(model_->kernels().isa), options_.common.threads);
    }

    const Options& options_;
    const Task& task_;
    std::unique_ptr<Model> model_;
    Context context_;
    bool by_cosine_ = false;
    uint32_t head_ = 0;
    std::vector<std::string_view> names_;
    TokenizedTexts texts_;
    Labels labels_, predicted_;
    std::vector<float> outputs_;
    size_t rows_ = 0, hairlines_ = 0;
};

}  // namespace

void add_glue(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand("glue", "Official GLUE metrics over an official-format file");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file")->required();
    command->add_option("--task", options->task, "sst2, cola, mrpc, stsb, rte, qnli, qqp, mnli or wnli")
        ->required()
        ->check(CLI::IsMember({"sst2", "cola", "mrpc", "stsb", "rte", "qnli", "qqp", "mnli", "wnli"}));
    command->add_option("TSV", options->tsv, "The data file")->required();
    command->add_option("--head", options->head,
                        "The head's name (default: the one called as the task, else the only one; stsb: the "
                        "only regression, and the cosine of embeddings where there is none)");
    command->add_option("--batch", options->batch, "Sentences of one call")
        ->check(CLI::Range(1u, 1u << 16))
        ->capture_default_str();
    command->add_option("--order", options->order, "Batches of texts of like length, or as the file has them")
        ->check(CLI::IsMember({"sorted", "file"}))
        ->capture_default_str();
    command->add_option("--predictions", options->predictions,
                        "Write outputs and label of every row to this file");
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return Evaluation(*options).run(); }; });
}

}  // namespace espalier
