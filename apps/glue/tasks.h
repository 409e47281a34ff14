// The nine GLUE tasks: what a file of each looks like, how it is scored, what its labels are called.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "apps/glue/metrics.h"

namespace espalier {

struct Task {
    std::string_view name;  // as in --task
    std::string_view column_a;
    std::string_view column_b;  // empty: single sentences
    std::string_view column_label;
    std::span<const std::string_view> positional;  // the columns of a file without a header row (CoLA)
    std::span<const Metric> metrics;               // the official ones, the main one first
    // Conventional names in index order, as the Hugging Face datasets have them; empty: a score (STS-B).
    std::span<const std::string_view> labels;

    bool is_pair() const { return !column_b.empty(); }
    bool is_score() const { return labels.empty(); }
};

std::span<const Task> tasks();

// Error(invalid_argument) that lists the nine names.
const Task& task_named(std::string_view name);

// The model's index of a label. Digits are an index; a name is looked up in the model's labels, first as it
// is, then without regard to ASCII case (models say ENTAILMENT where the files say entailment).
// Error(invalid_argument) that lists the model's labels when there is none.
int match_label(std::string_view text, std::span<const std::string_view> model_labels);

// A finite decimal number and nothing else.
std::optional<double> parse_score(std::string_view text);

}  // namespace espalier
