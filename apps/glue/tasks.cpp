#include "apps/glue/tasks.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>

#include "base/error.h"

namespace espalier {
namespace {

using std::string_view;

constexpr Metric kAccuracy[] = {Metric::accuracy};
constexpr Metric kAccuracyF1[] = {Metric::accuracy, Metric::f1};
constexpr Metric kMatthews[] = {Metric::matthews, Metric::accuracy};  // accuracy is an extra
constexpr Metric kCorrelations[] = {Metric::pearson, Metric::spearman};

constexpr string_view kSst2[] = {"negative", "positive"};
constexpr string_view kCola[] = {"unacceptable", "acceptable"};
constexpr string_view kMrpc[] = {"not_equivalent", "equivalent"};
constexpr string_view kQqp[] = {"not_duplicate", "duplicate"};
constexpr string_view kMnli[] = {"entailment", "neutral", "contradiction"};
constexpr string_view kEntailment[] = {"entailment", "not_entailment"};
constexpr string_view kWnli[] = {"not_entailment", "entailment"};  // its files say 0 and 1

constexpr string_view kColaColumns[] = {"source", "label", "star", "sentence"};

constexpr Task kTasks[] = {
    {"sst2", "sentence", "", "label", {}, kAccuracy, kSst2},
    {"cola", "sentence", "", "label", kColaColumns, kMatthews, kCola},
    {"mrpc", "#1 String", "#2 String", "Quality", {}, kAccuracyF1, kMrpc},
    {"stsb", "sentence1", "sentence2", "score", {}, kCorrelations, {}},
    {"rte", "sentence1", "sentence2", "label", {}, kAccuracy, kEntailment},
    {"qnli", "question", "sentence", "label", {}, kAccuracy, kEntailment},
    {"qqp", "question1", "question2", "is_duplicate", {}, kAccuracyF1, kQqp},
    {"mnli", "sentence1", "sentence2", "gold_label", {}, kAccuracy, kMnli},
    {"wnli", "sentence1", "sentence2", "label", {}, kAccuracy, kWnli},
};

bool equal_without_case(string_view a, string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](char x, char y) { return lower(x) == lower(y); });
}

template <class Same>
int index_of(string_view text, std::span<const string_view> labels, Same same) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (same(text, labels[i])) return static_cast<int>(i);
    }
    return -1;
}

[[noreturn]] void fail_label(string_view text, std::span<const string_view> model_labels) {
    std::string list;
    for (std::size_t i = 0; i < model_labels.size(); ++i) {
        list += (i == 0 ? "" : ", ") + std::to_string(i) + " " + std::string(model_labels[i]);
    }
    throw Error(Status::invalid_argument, "label: expected one of the model's labels (%.300s), got '%.60s'",
                list.empty() ? "it has none" : list.c_str(), std::string(text).c_str());
}

}  // namespace

std::span<const Task> tasks() {
    return kTasks;
}

const Task& task_named(string_view name) {
    std::string list;
    for (const Task& task : kTasks) {
        if (task.name == name) return task;
        list += (list.empty() ? "" : ", ") + std::string(task.name);
    }
    throw Error(Status::invalid_argument, "task: expected one of %s, got '%.60s'", list.c_str(),
                std::string(name).c_str());
}

int match_label(string_view text, std::span<const string_view> model_labels) {
    const bool digits =
        !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (digits) {
        std::size_t index = 0;
        const auto parsed = std::from_chars(text.data(), text.data() + text.size(), index);
        if (parsed.ec != std::errc() || index >= model_labels.size()) fail_label(text, model_labels);
        return static_cast<int>(index);
    }
    int index = index_of(text, model_labels, std::equal_to<string_view>());
    if (index < 0) index = index_of(text, model_labels, equal_without_case);
    if (index < 0) fail_label(text, model_labels);
    return index;
}

std::optional<double> parse_score(string_view text) {
    double value = 0.0;
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(value)) return std::nullopt;
    return value;
}

}  // namespace espalier
