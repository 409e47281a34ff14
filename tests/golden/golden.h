// What the golden tests share: running ids through a context with every layer's hidden states kept.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "kernels/forest/forest.h"
#include "runtime/context.h"

namespace espalier::test {

struct Trace {
    std::vector<std::vector<float>> hidden;     // [layers + 1][tokens * hidden]
    std::vector<std::vector<uint32_t>> leaves;  // [forests][tokens * trees]
    std::vector<std::vector<float>> margins;
    std::vector<float> logits;  // empty for a model without heads
    float least_margin() const {
        float least = INFINITY;
        for (const auto& forest : margins) {
            for (const float margin : forest)
                least = margin < least ? margin : least;
        }
        return least;
    }
    bool has_hairline() const { return least_margin() < hairline; }
};

inline Trace trace_of(Context& context, std::span<const int32_t> ids, std::span<const uint8_t> types = {},
                      size_t head = 0) {
    Trace trace;
    const auto keep = [](void* user, uint32_t, const float* values, size_t tokens) {
        auto* self = static_cast<std::pair<Trace*, size_t>*>(user);
        self->first->hidden.emplace_back(values, values + tokens * self->second);
    };
    std::pair<Trace*, size_t> user{&trace, context.model().spec().hidden};
    context.on_layer(keep, &user);
    const uint32_t offsets[2] = {0, static_cast<uint32_t>(ids.size())};
    const Batch batch{ids, types, offsets};
    if (context.model().spec().heads.empty()) {
        context.encode(batch);
    } else {
        const auto logits = context.score(batch, head);
        trace.logits.assign(logits.begin(), logits.end());
    }
    context.on_layer(nullptr, nullptr);
    for (const PreparedBlock& block : context.model().prepared().blocks) {
        for (const PreparedPart& part : block.parts) {
            if (!part.spec->is_forest()) continue;
            const size_t count = ids.size() * part.spec->trees;
            const ForestRoutes routes = context.routes(part.forest);
            trace.leaves.emplace_back(routes.leaf, routes.leaf + count);
            trace.margins.emplace_back(routes.margin, routes.margin + count);
        }
    }
    return trace;
}

inline float largest_difference(std::span<const float> a, std::span<const float> b) {
    if (a.size() != b.size()) return INFINITY;
    float largest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const float difference = std::fabs(a[i] - b[i]);
        if (!(difference <= largest)) largest = difference;  // NaN counts as the largest
    }
    return largest;
}

inline double cosine(std::span<const float> a, std::span<const float> b) {
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < a.size() && a.size() == b.size(); ++i) {
        ab += static_cast<double>(a[i]) * b[i];
        aa += static_cast<double>(a[i]) * a[i];
        bb += static_cast<double>(b[i]) * b[i];
    }
    return ab / std::sqrt(aa * bb);
}

}  // namespace espalier::test
