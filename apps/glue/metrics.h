// The official GLUE metrics, as fractions. Values agree with scikit-learn and scipy where those return one;
// where they raise, warn or disagree, the result is defined here:
//   no rows at all                              NaN, for every metric (JSON shows null)
//   F1 without a true or predicted positive     0
//   Matthews when either side is constant       0
//   a correlation of one row, of a constant     NaN
//   side, or of a NaN
// Two sides of different lengths are the caller's mistake: Error(invalid_argument).
#pragma once

#include <span>

namespace espalier {

enum class Metric { accuracy, f1, matthews, pearson, spearman };

// The key it has in JSON.
const char* metric_name(Metric metric);

double accuracy(std::span<const int> predicted, std::span<const int> expected);

// Binary: class 1 is positive, every other class negative.
double f1(std::span<const int> predicted, std::span<const int> expected);

// Any number of classes (Gorodkin's R_K; for two classes the usual coefficient).
double matthews(std::span<const int> predicted, std::span<const int> expected);

double pearson(std::span<const double> predicted, std::span<const double> expected);

// Equal values share the mean of their ranks.
double spearman(std::span<const double> predicted, std::span<const double> expected);

// The metric of that name: the first form takes accuracy, f1 and matthews, the second pearson and spearman.
double measure(Metric metric, std::span<const int> predicted, std::span<const int> expected);
double measure(Metric metric, std::span<const double> predicted, std::span<const double> expected);

}  // namespace espalier
