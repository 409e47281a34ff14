#include "runtime/forest.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/parallel.h"
#include "kernels/forest/leaf_pack.h"
#include "model_format/layout.h"
#include "runtime/forest_shape.h"

namespace espalier {
namespace {

// Least tokens a thread is woken for, as in the block loop.
constexpr size_t forest_grain = 4;

void require(bool present, const char* name) {
    if (!present) throw Error(Status::invalid_argument, "weights.%s: expected a pointer, found null", name);
}

void check_range(const char* name, uint64_t value, uint64_t least, uint64_t most) {
    if (value < least || value > most)
        throw Error(Status::invalid_argument, "%s: expected %llu to %llu, found %llu", name,
                    static_cast<unsigned long long>(least), static_cast<unsigned long long>(most),
                    static_cast<unsigned long long>(value));
}

// The caps of the model file; no product of sizes below wraps under them.
void check_shape(const PartSpec& spec, size_t hidden) {
    check_range("hidden", hidden, 1, uint64_t{1} << 20);
    check_range("trees", spec.trees, 1, uint64_t{1} << 16);
    check_range("depth", spec.depth, 0, layout::max_depth);
    check_range("leaf_width", spec.leaf_width, 0, spec.kind == PartKind::leaf_forest ? uint64_t{1} << 20 : 0);
    check_range("nodes of all trees", spec.trees * spec.nodes_per_tree(), 0, uint64_t{1} << 30);
    uint64_t numbers = 0;
    if (!checked_multiply(std::max(spec.stored_neurons(), spec.trees * spec.leaves_per_tree()), hidden,
                          numbers) ||
        numbers > uint64_t{1} << 44)
        throw Error(Status::invalid_argument, "forest: too many weights: %llu neurons of %zu",
                    static_cast<unsigned long long>(spec.stored_neurons()), hidden);
}

}  // namespace

Forest::Forest(const PartSpec& spec, size_t hidden, const ForestWeights& weights, const KernelTable& kernels,
               std::pmr::memory_resource* memory)
    : spec_(spec), hidden_(hidden), kernels_(kernels), store_(memory) {
    check_shape(spec, hidden);
    if (spec.kind == PartKind::neuron_forest) {
        use_neurons(weights);
    } else {
        pack_leaves(weights);
    }
}

void Forest::use_neurons(const ForestWeights& weights) {
    require(weights.node_weight != nullptr, "node_weight");
    require(weights.down != nullptr, "down");
    if (weights.up != nullptr || weights.up_bias != nullptr)
        throw Error(Status::invalid_argument, "weights.up: expected null for a neuron forest");
    neuron_ = forest_shape<NeuronForest>(spec_, hidden_);
    neuron_.in = weights.node_weight;
    neuron_.in_bias = weights.node_bias;
    neuron_.out = weights.down;
    neuron_.out_bias = weights.output_bias;
}

void Forest::pack_leaves(const ForestWeights& weights) {
    auto shape = forest_shape<LeafForest>(spec_, hidden_);
    shape.leaf_width = spec_.leaf_width;
    LeafPacker packer(
        shape, reinterpret_cast<std::byte*>(store_.floats(LeafPacker::bytes(shape) / sizeof(float) + 1)));
    const size_t nodes = spec_.trees * spec_.nodes_per_tree();
    if (nodes > 0) {
        require(weights.node_weight != nullptr, "node_weight");
        // The kernels test x.w - t > 0.
        float* thresholds = store_.floats(nodes);
        for (size_t n = 0; n < nodes && weights.node_bias != nullptr; ++n)
            thresholds[n] = -weights.node_bias[n];
        packer.nodes(weights.node_weight, thresholds);
    }
    if (spec_.leaf_width > 0) {
        require(weights.up != nullptr, "up");
        require(weights.down != nullptr, "down");
        packer.up(weights.up);
        packer.down(weights.down);
        if (weights.up_bias != nullptr) packer.up_bias(weights.up_bias);
    }
    if (weights.output_bias != nullptr) packer.output_bias(weights.output_bias);
    leaf_ = packer.forest();
}

// A thread's part of the call has at most this many tokens and no more than all.
size_t Forest::thread_scratch(size_t tokens) const {
    return round_up(spec_.kind == PartKind::neuron_forest ? espalier::scratch_bytes(neuron_, tokens)
                                                          : espalier::scratch_bytes(leaf_, tokens),
                    64);
}

size_t Forest::route_bytes(size_t tokens) const {
    return round_up(tokens * spec_.trees * sizeof(uint32_t), 64);
}

size_t Forest::scratch_bytes(size_t tokens, int threads) const {
    check_range("threads", static_cast<uint64_t>(std::max(threads, 0)), 1, 1024);
    check_range("tokens", tokens, 0, UINT32_MAX);
    return thread_scratch(tokens) * static_cast<size_t>(threads) + 2 * route_bytes(tokens);
}

void Forest::run(const ForestCall& call, int threads) const {
    ForestRoutes routes = call.routes;
    std::byte* own = call.scratch;
    if (routes.leaf == nullptr) routes.leaf = reinterpret_cast<uint32_t*>(own);
    own += route_bytes(call.tokens);
    if (routes.margin == nullptr) routes.margin = reinterpret_cast<float*>(own);
    own += route_bytes(call.tokens);
    const size_t bytes = thread_scratch(call.tokens);
    wake_threads(call.tokens / forest_grain > 1 ? threads : 1);
    const FlushDenormals flush;
    parallel_for(threads, call.tokens, forest_grain, [&](size_t begin, size_t end, int thread) {
        ForestCall part = call;
        part.x = static_cast<const float*>(call.x) + begin * hidden_;
        part.y = call.y + begin * hidden_;
        part.tokens = end - begin;
        part.routes = {routes.leaf + begin * spec_.trees, routes.margin + begin * spec_.trees};
        part.scratch = own + static_cast<size_t>(thread) * bytes;
        if (spec_.kind == PartKind::neuron_forest) {
            kernels_.neuron_forest_f32(neuron_, part);
        } else {
            kernels_.leaf_forest_f32(leaf_, part);
        }
    });
}

}  // namespace espalier
