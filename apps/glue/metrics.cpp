#include "apps/glue/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace espalier {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

void require_same_length(std::size_t predicted, std::size_t expected) {
    if (predicted == expected) return;
    throw Error(Status::invalid_argument, "metric: expected as many predictions as labels, got %zu and %zu",
                predicted, expected);
}

bool has_nan(std::span<const double> values) {
    return std::any_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
}

bool is_constant(std::span<const double> values) {
    return std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; });
}

// Deviations from the mean, scaled to a largest of 1 so that their squares neither overflow nor vanish.
std::vector<double> deviations(std::span<const double> values) {
    double mean = 0.0;
    for (const double v : values)
        mean += v / static_cast<double>(values.size());
    double largest = 0.0;
    for (const double v : values)
        largest = std::max(largest, std::fabs(v - mean));
    std::vector<double> result;
    result.reserve(values.size());
    for (const double v : values)
        result.push_back((v - mean) / largest);
    return result;
}

std::vector<double> average_ranks(std::span<const double> values) {
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t i, std::size_t j) { return values[i] < values[j]; });
    std::vector<double> ranks(values.size());
    for (std::size_t first = 0; first < order.size();) {
        std::size_t last = first + 1;
        while (last < order.size() && values[order[last]] == values[order[first]])
            ++last;
        const double rank = static_cast<double>(first + last - 1) / 2.0 + 1.0;
        for (; first < last; ++first)
            ranks[order[first]] = rank;
    }
    return ranks;
}

[[noreturn]] void fail_kind(Metric metric, const char* expected) {
    throw Error(Status::invalid_argument, "metric: expected %s, got %s", expected, metric_name(metric));
}

}  // namespace

const char* metric_name(Metric metric) {
    switch (metric) {
        case Metric::accuracy:
            return "accuracy";
        case Metric::f1:
            return "f1";
        case Metric::matthews:
            return "matthews";
        case Metric::pearson:
            return "pearson";
        case Metric::spearman:
            return "spearman";
    }
    return "unknown";
}

double accuracy(std::span<const int> predicted, std::span<const int> expected) {
    require_same_length(predicted.size(), expected.size());
    if (expected.empty()) return kUndefined;
    std::size_t correct = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
        correct += predicted[i] == expected[i] ? 1 : 0;
    return static_cast<double>(correct) / static_cast<double>(expected.size());
}

double f1(std::span<const int> predicted, std::span<const int> expected) {
    require_same_length(predicted.size(), expected.size());
    if (expected.empty()) return kUndefined;
    std::size_t both = 0, either = 0;  // either counts a row once a side, so a true positive twice
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const bool p = predicted[i] == 1, e = expected[i] == 1;
        both += p && e ? 1 : 0;
        either += (p ? 1u : 0u) + (e ? 1u : 0u);
    }
    return either == 0 ? 0.0 : 2.0 * static_cast<double>(both) / static_cast<double>(either);
}

double matthews(std::span<const int> predicted, std::span<const int> expected) {
    require_same_length(predicted.size(), expected.size());
    if (expected.empty()) return kUndefined;
    struct Counts {
        std::int64_t predicted = 0, expected = 0;
    };
    std::map<int, Counts> classes;
    std::int64_t correct = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        ++classes[predicted[i]].predicted;
        ++classes[expected[i]].expected;
        correct += predicted[i] == expected[i] ? 1 : 0;
    }
    // Integers keep the covariances exact up to 3e9 rows, so that "undefined" is an exact zero.
    const auto n = static_cast<std::int64_t>(expected.size());
    std::int64_t joint = correct * n, own_predicted = n * n, own_expected = n * n;
    for (const auto& [label, count] : classes) {
        joint -= count.predicted * count.expected;
        own_predicted -= count.predicted * count.predicted;
        own_expected -= count.expected * count.expected;
    }
    if (own_predicted == 0 || own_expected == 0) return 0.0;
    return static_cast<double>(joint) /
           std::sqrt(static_cast<double>(own_predicted) * static_cast<double>(own_expected));
}

double pearson(std::span<const double> predicted, std::span<const double> expected) {
    require_same_length(predicted.size(), expected.size());
    if (expected.size() < 2 || has_nan(predicted) || has_nan(expected)) return kUndefined;
    // Asked of the values: the rounded mean of equal values can differ from them.
    if (is_constant(predicted) || is_constant(expected)) return kUndefined;
    const std::vector<double> p = deviations(predicted), e = deviations(expected);
    double pp = 0.0, ee = 0.0, pe = 0.0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        pp += p[i] * p[i];
        ee += e[i] * e[i];
        pe += p[i] * e[i];
    }
    return std::clamp(pe / std::sqrt(pp * ee), -1.0, 1.0);
}

double spearman(std::span<const double> predicted, std::span<const double> expected) {
    require_same_length(predicted.size(), expected.size());
    if (has_nan(predicted) || has_nan(expected)) return kUndefined;  // a NaN has no rank
    return pearson(average_ranks(predicted), average_ranks(expected));
}

double measure(Metric metric, std::span<const int> predicted, std::span<const int> expected) {
    if (metric == Metric::accuracy) return accuracy(predicted, expected);
    if (metric == Metric::f1) return f1(predicted, expected);
    if (metric == Metric::matthews) return matthews(predicted, expected);
    fail_kind(metric, "a metric of labels");
}

double measure(Metric metric, std::span<const double> predicted, std::span<const double> expected) {
    if (metric == Metric::pearson) return pearson(predicted, expected);
    if (metric == Metric::spearman) return spearman(predicted, expected);
    fail_kind(metric, "a metric of scores");
}

}  // namespace espalier
