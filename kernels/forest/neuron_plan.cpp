#include "kernels/forest/neuron_plan.h"

#include <algorithm>

#include "base/checked.h"

namespace espalier {
namespace {

// What the plan supposes of the machine: half of a second-level cache of 1 MiB for rows that many tokens
// share, a core's part of a third-level cache of a few MiB, and what of that cache a process finds for itself
// when it is alone.
constexpr size_t near_bytes = size_t{512} << 10, far_bytes = size_t{6} << 20,
                 third_level_bytes = size_t{16} << 20;

}  // namespace

NeuronPlan plan_neuron_forest(const NeuronForest& f, size_t tokens) {
    const size_t node_bytes = (f.gated() ? 3 : 2) * f.hidden * bytes_of(f.rows),
                 leaves = size_t{1} << f.depth;
    NeuronPlan plan;
    // Six levels are 63 nodes: 378 KiB at 768 float32. Narrower rows would let more levels stay near, but
    // halving 12 levels was best for them too.
    while (plan.near_levels < 6 && ((size_t{2} << plan.near_levels) - 1) * node_bytes <= near_bytes)
        ++plan.near_levels;
    plan.near_levels = std::min(std::max<size_t>(plan.near_levels, 1), f.levels());
    // A second pass reads x again and sorts: it pays once whole groups meet in the subtrees.
    const bool meet = tokens >= NeuronPlan::side << plan.near_levels;
    plan.first_levels = meet && plan.near_levels < f.levels() ? plan.near_levels : f.levels();
    plan.outputs_by_leaf = plan.first_levels < f.levels() && f.trees == 1 && tokens >= 2 * leaves;
    // Where tokens outnumber nodes most rows are in the second-level cache, brought by another token, and
    // asking for them again takes longer than it saves.
    plan.fetch = tokens < 2 * leaves;
    // A lone token waits for every row, with no other to fill the time. Twice the rows pay where they come
    // from the third-level cache (4,095 nodes of 768 on Zen 5: 15 % less in bf16, 4 % in 8 bits), not from
    // memory (4 % more in float32).
    plan.fetch_ahead = plan.fetch && tokens == 1 && f.trees * f.nodes() * node_bytes <= third_level_bytes;
    // An output so large has left the caches before its reader comes; written past them it need not be read
    // first. The rows of y must be whole vectors at whole lines.
    plan.stream = tokens * f.hidden * sizeof(float) >= far_bytes && f.hidden % 16 == 0;
    return plan;
}

NeuronLayout neuron_layout(const NeuronForest& f, const NeuronPlan& plan, size_t tokens) {
    const bool sorted = plan.first_levels < f.levels();
    const size_t kept = sorted ? tokens : NeuronPlan::largest_group;
    const size_t places = size_t{1} << (plan.outputs_by_leaf ? f.depth : plan.first_levels);
    const size_t paths = NeuronPlan::largest_group * f.trees, levels = round_up(f.levels(), 4);
    NeuronLayout layout;
    const auto take = [&](size_t count, size_t size) {
        const size_t start = layout.bytes;
        layout.bytes += round_up(count * size, 64);
        return start;
    };
    const size_t kept_values = sorted ? tokens * f.trees * f.levels() : 0;
    layout.kept = take(kept_values, sizeof(float));
    layout.kept_factors = take(f.gated() ? kept_values : 0, sizeof(float));
    layout.x_sum = take(f.rows == TensorType::s8 ? kept : 0, sizeof(int32_t));
    layout.order = take(sorted ? tokens : 0, sizeof(uint32_t));
    layout.buckets = take(sorted ? places + 1 : 0, sizeof(uint32_t));
    layout.a = take(paths * levels, sizeof(float));
    layout.factors = take(f.gated() ? paths * levels : 0, sizeof(float));
    layout.rows = take(paths * levels, sizeof(void*));
    layout.words = take(paths * levels, sizeof(uint32_t));
    layout.scales = take(paths, sizeof(float));
    layout.starts = take(paths, sizeof(int32_t));
    return layout;
}

// The scalar form, a path of rows and activations, needs less than a group's outputs do.
size_t scratch_bytes(const NeuronForest& forest, size_t tokens) {
    return neuron_layout(forest, plan_neuron_forest(forest, tokens), tokens).bytes;
}

}  // namespace espalier
