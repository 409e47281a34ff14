// What a model answers for a few tokens, and whether two paths through it gave the same answer.
//
// Two paths may differ by rounding. How much that is worth depends on the model (one whose numbers were
// spoilt may turn a last bit into anything), so it is measured: `conditioned` is how far the answer moves
// when the embedding's rows are off by a few parts in a million, and a difference must stay below a small
// multiple of that where it is not small by itself. A token that was within a hairline of another leaf is
// exempt, as everywhere (design: |pre-activation - threshold| < 1e-4).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/context.h"
#include "runtime/model.h"

namespace espalier::test {

struct Answers {
    std::vector<float> values;  // hidden states of an encoder, then every head's scores; logits of a decoder
    std::vector<uint32_t> leaves;  // of all forests
    std::vector<float> margins;

    bool finite() const {
        return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
    }
    float largest() const {
        float most = 0;
        for (const float v : values)
            most = std::max(most, std::fabs(v));
        return most;
    }
};

inline void append(std::vector<float>& target, std::span<const float> values) {
    target.insert(target.end(), values.begin(), values.end());
}

inline void take_routes(const Context& context, Answers& answers) {
    size_t forest = 0;
    for (const PartSpec& part : context.model().spec().parts) {
        if (!part.is_forest()) continue;
        const ForestRoutes routes = context.routes(forest++);
        const size_t count = context.tokens() * part.trees;
        answers.leaves.insert(answers.leaves.end(), routes.leaf, routes.leaf + count);
        answers.margins.insert(answers.margins.end(), routes.margin, routes.margin + count);
    }
}

// Of these sequences, packed; a decoder reads the ids as one.
inline Answers answers_of(Context& context, const Batch& batch) {
    Answers answers;
    if (context.model().spec().family == Family::decoder) {
        context.decoder().clear();
        append(answers.values, context.decoder().append(batch.ids));
        return answers;
    }
    append(answers.values, context.encode(batch));
    take_routes(context, answers);
    append(answers.values, context.embed(batch));
    for (uint32_t head = 0; head < context.model().spec().heads.size(); ++head)
        append(answers.values, context.score(batch, head));
    return answers;
}

inline float difference(const Answers& a, const Answers& b) {
    if (a.values.size() != b.values.size() || a.finite() != b.finite()) return INFINITY;
    if (!a.finite())
        return 0;  // where numbers have left their range, which of them did so is a matter of order
    float most = 0;
    for (size_t i = 0; i < a.values.size(); ++i)
        most = std::max(most, std::fabs(a.values[i] - b.values[i]));
    return most;
}

// Whether the two took another leaf only where the walk was within a hairline, and did so somewhere.
inline bool parted_by_a_hairline(const Answers& a, const Answers& b) {
    for (size_t i = 0; i < a.leaves.size() && i < b.leaves.size(); ++i) {
        // Of walks in order of layers the first that parts decides: what is behind it differs anyway.
        if (a.leaves[i] != b.leaves[i]) return std::min(a.margins[i], b.margins[i]) < 1e-4F;
    }
    return false;
}

}  // namespace espalier::test
