#include "apps/heads.h"

#include <vector>

#include "base/error.h"
#include "runtime/context.h"

namespace espalier {
namespace {

using Heads = std::vector<uint32_t>;

std::string listed(const Model& model, const Heads& heads) {
    std::string list;
    for (const uint32_t h : heads)
        list.append(list.empty() ? "" : ", ").append(model.head_name(h));
    return list;
}

// All heads, or the regressions alone.
Heads heads_of(const Model& model, bool regressions) {
    Heads heads;
    for (uint32_t h = 0; h < model.spec().heads.size(); ++h) {
        if (!regressions || model.spec().heads[h].kind == HeadKind::regression) heads.push_back(h);
    }
    return heads;
}

std::optional<uint32_t> find(const Model& model, std::string_view name) {
    for (uint32_t h = 0; h < model.spec().heads.size(); ++h) {
        if (model.spec().heads[h].name == name) return h;
    }
    return std::nullopt;
}

[[noreturn]] void fail_without(const Model& model) {
    throw Error(Status::invalid_argument, "%s: the model has no classification head (it gives embeddings)",
                model.file().source());
}

[[noreturn]] void fail_several(const Model& model, const Heads& heads, const std::string& why) {
    throw Error(Status::invalid_argument, "%s: --head: expected one of %.240s%s, found none",
                model.file().source(), listed(model, heads).c_str(), why.c_str());
}

// Throws where the task's answers cannot be the head's.
uint32_t fitting(const Model& model, uint32_t head, const Task& task) {
    const HeadSpec& spec = model.spec().heads[head];
    const std::string name(task.name);
    if (task.is_score() && spec.kind != HeadKind::regression)
        throw Error(Status::invalid_argument, "%s: head %s: expected a regression for %s, found a classifier",
                    model.file().source(), model.head_name(head), name.c_str());
    if (!task.is_score() && (spec.kind != HeadKind::classifier || spec.outputs != task.labels.size()))
        throw Error(Status::invalid_argument,
                    "%s: head %s: expected a classifier of %zu classes for %s, found a %s of %u",
                    model.file().source(), model.head_name(head), task.labels.size(), name.c_str(),
                    name_of(spec.kind), spec.outputs);
    return head;
}

}  // namespace

uint32_t head_named(const Model& model, const std::string& name) {
    const Heads all = heads_of(model, false);
    if (all.empty()) fail_without(model);
    if (name.empty()) {
        if (all.size() > 1) fail_several(model, all, "");
        return 0;
    }
    if (const auto head = find(model, name)) return *head;
    throw Error(Status::invalid_argument, "%s: --head: expected one of %.240s, found %.60s",
                model.file().source(), listed(model, all).c_str(), name.c_str());
}

std::optional<uint32_t> head_for_task(const Model& model, const Task& task, const std::string& name) {
    if (!name.empty()) return fitting(model, head_named(model, name), task);
    if (const auto head = find(model, task.name)) return fitting(model, *head, task);
    const Heads heads = heads_of(model, task.is_score());
    if (heads.size() > 1) fail_several(model, heads, " (none is called " + std::string(task.name) + ")");
    if (!heads.empty()) return fitting(model, heads[0], task);
    if (!task.is_score()) fail_without(model);
    return std::nullopt;
}

Decision decide(const Model& model, uint32_t head, std::span<const float> scores) {
    const HeadSpec& spec = model.spec().heads[head];
    Decision decision;
    if (spec.kind == HeadKind::regression) {
        decision.regression = true;
        decision.value = scores[0];
        decision.label = "value";
        return decision;
    }
    const Choice choice = most_likely(scores);
    decision.index = choice.index;
    decision.value = choice.probability;
    decision.label =
        spec.label_count > 0 ? model.label(head, decision.index) : std::to_string(decision.index);
    return decision;
}

}  // namespace espalier
