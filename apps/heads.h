// Which head of a model a command uses, and what a head's scores say.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "apps/glue/tasks.h"
#include "runtime/model.h"

namespace espalier {

// The head of that name; an empty name means the only one. Throws Error(invalid_argument) that lists the
// heads.
uint32_t head_named(const Model& model, const std::string& name);

// The head of that name; an empty name means the one called as the task, else the only one. Of a task of
// scores (STS-B) only regressions count, and std::nullopt, without any, means the cosine of embeddings.
// Throws as head_named, and where head and task do not fit.
std::optional<uint32_t> head_for_task(const Model& model, const Task& task, const std::string& name);

struct Decision {
    bool regression = false;
    uint32_t index = 0;
    float value = 0;    // probability of the label, or the regression's value
    std::string label;  // its name; its number where the head has no names; "value" for a regression
};
Decision decide(const Model& model, uint32_t head, std::span<const float> scores);

}  // namespace espalier
