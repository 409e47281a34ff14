#include "apps/model_work.h"

#include <algorithm>

#include "apps/ffn_spec.h"

namespace espalier {
namespace {

size_t distinct_of(const PreparedPart& part, const Context& context) {
    const size_t trees = part.spec->trees;
    std::vector<uint64_t> seen;
    for (size_t i = 0; i < context.tokens() * trees; ++i)
        seen.push_back((i % trees) << 32 | context.routes(part.forest).leaf[i]);
    std::sort(seen.begin(), seen.end());
    return static_cast<size_t>(std::unique(seen.begin(), seen.end()) - seen.begin());
}

uint64_t bytes_of_part(const PreparedPart& part, const Context& context, uint64_t hidden, uint64_t tokens,
                       uint64_t number) {
    const PartSpec& spec = *part.spec;
    switch (spec.kind) {
        case PartKind::dense:
            return rows_of(spec) * spec.width * hidden * number;
        case PartKind::leaf_forest: {
            const uint64_t leaves =
                distinct_of(part, context) * rows_of(spec) * spec.leaf_width * hidden * number;
            return leaves +
                   std::min(spec.stored_nodes(), tokens * spec.node_tests()) * hidden * sizeof(float);
        }
        case PartKind::neuron_forest:
            return std::min(spec.stored_neurons(), tokens * spec.active_neurons()) * rows_of(spec) * hidden *
                   number;
    }
    return 0;
}

}  // namespace

ModelWork work_of(const Model& model, const Context& context, uint64_t batch, uint64_t length) {
    ModelWork work;
    const ModelSpec& spec = model.spec();
    const uint64_t hidden = spec.hidden, tokens = batch * length, number = bytes_of(model.precision());
    for (const PreparedBlock& block : model.prepared().blocks) {
        if (block.qkv) {
            const uint64_t query = block.attention.query_width();
            const uint64_t projections = hidden * (block.attention.row_stride() + query);
            work.multiply_adds += tokens * projections + 2 * tokens * length * query;
            work.weight_bytes += projections * number;
        }
        work.multiply_adds += tokens * multiply_adds(spec.parts_of(*block.spec), hidden);
        for (const PreparedPart& part : block.parts)
            work.weight_bytes += bytes_of_part(part, context, hidden, tokens, number);
    }
    if (model.prepared().output != nullptr)
        work.weight_bytes += hidden * spec.vocabulary * bytes_of(model.prepared().output->shape().input);
    return work;
}

std::vector<size_t> distinct_leaves(const Model& model, const Context& context) {
    std::vector<size_t> counts;
    for (const PreparedBlock& block : model.prepared().blocks) {
        for (const PreparedPart& part : block.parts) {
            if (part.spec->is_forest()) counts.push_back(distinct_of(part, context));
        }
    }
    return counts;
}

}  // namespace espalier
