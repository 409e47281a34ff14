#include "apps/layer_forest_part.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/float16.h"
#include "kernels/cpu/parallel.h"
#include "kernels/forest/leaf_pack.h"
#include "kernels/quantize/quantize.h"

namespace espalier {
namespace {

// Least tokens a thread is woken for: as the runtime has it.
constexpr size_t forest_grain = 4;

// Deviation of node biases and thresholds, where products have 1: every node stays nearly a coin toss.
constexpr float balance = 0.01F;

enum : uint64_t { in_matrix, out_matrix, node_biases, output_biases, shared_matrix };

float inverse_root(size_t n) {
    return 1 / std::sqrt(static_cast<float>(n));
}

// One row in the type of the forest's rows.
void store_row(TensorType type, const float* row, size_t count, std::byte* target, float* scale) {
    if (type == TensorType::f32) {
        std::memcpy(target, row, count * sizeof(float));
    } else if (type == TensorType::bf16) {
        for (size_t i = 0; i < count; ++i)
            reinterpret_cast<uint16_t*>(target)[i] = bfloat_from_float(row[i]);
    } else {
        *scale = row_scale(row, count);
        round_to_s8(row, *scale, reinterpret_cast<int8_t*>(target), count);
    }
}

}  // namespace

ForestPart::ForestPart(size_t hidden, const PartSpec& spec, size_t shared, TensorType precision,
                       const KernelTable& kernels, int threads, size_t most_tokens, const RandomRows& random,
                       uint64_t matrix, std::pmr::memory_resource* memory)
    : hidden_(hidden),
      spec_(spec),
      precision_(precision),
      kernels_(kernels),
      threads_(threads),
      leaf_(most_tokens * spec.trees),
      margin_(most_tokens * spec.trees) {
    if (spec.kind == PartKind::neuron_forest) {
        build_neuron(random, matrix, memory);
    } else {
        build_leaf(shared, random, matrix, memory);
    }
    scratch_bytes_ = round_up(scratch(most_tokens), 64);
    scratch_ = HugeBlock(scratch_bytes_ * static_cast<size_t>(threads), memory);
}

size_t ForestPart::scratch(size_t tokens) const {
    return spec_.kind == PartKind::neuron_forest ? espalier::scratch_bytes(neuron_, tokens)
                                                 : espalier::scratch_bytes(leaf_forest_, tokens);
}

void ForestPart::build_neuron(const RandomRows& random, uint64_t matrix, std::pmr::memory_resource* memory) {
    NeuronForest& f = neuron_;
    f.hidden = hidden_;
    f.trees = spec_.trees;
    f.depth = spec_.depth;
    f.rows = precision_;
    const size_t rows = f.trees * f.nodes(), row_bytes = hidden_ * bytes_of(precision_);
    const size_t matrix_bytes = round_up(rows * row_bytes, 4096) + 4096,
                 vector_bytes = round_up(rows * 4, 64);
    weights_ = HugeBlock(2 * matrix_bytes + 3 * vector_bytes, memory);
    std::byte *in = weights_.data(), *out = in + matrix_bytes;
    auto* bias = reinterpret_cast<float*>(out + matrix_bytes);
    float *in_scale = bias + vector_bytes / 4, *out_scale = in_scale + vector_bytes / 4;
    std::vector<float> row(hidden_);
    const float out_size = inverse_root(f.trees * (f.depth + 1));
    for (size_t r = 0; r < rows; ++r) {
        random.row(matrix + in_matrix, r, inverse_root(hidden_), row.data(), hidden_);
        store_row(precision_, row.data(), hidden_, in + r * row_bytes, in_scale + r);
        random.row(matrix + out_matrix, r, out_size, row.data(), hidden_);
        store_row(precision_, row.data(), hidden_, out + r * row_bytes, out_scale + r);
        random.row(matrix + node_biases, r, balance, bias + r, 1);
    }
    f.in = in;
    f.out = out;
    f.in_bias = bias;
    if (precision_ != TensorType::s8) return;
    f.in_scale = in_scale;
    f.out_scale = out_scale;
}

void ForestPart::build_leaf(size_t shared, const RandomRows& random, uint64_t matrix,
                            std::pmr::memory_resource* memory) {
    LeafForest shape;
    shape.hidden = hidden_;
    shape.trees = spec_.trees;
    shape.depth = spec_.depth;
    shape.leaf_width = spec_.leaf_width;
    shape.shared_width = shared;
    shape.rows = precision_;
    shape.rotated_activations =
        precision_ == TensorType::s8;  // as whole models have it; random rows stay random
    shape.node_rows = precision_ == TensorType::f32 ? TensorType::f32 : TensorType::bf16;
    const size_t nodes = shape.trees * (shape.leaves() - 1), groups = shape.groups();
    const size_t packed = round_up(LeafPacker::bytes(shape), 4096);
    // Float32 nodes are read where they stand.
    weights_ = HugeBlock(packed + nodes * hidden_ * sizeof(float), memory);
    auto* node_rows = reinterpret_cast<float*>(weights_.data() + packed);
    LeafPacker packer(shape, weights_.data());
    std::vector<float> buffer;
    const auto filled = [&](uint64_t which, size_t rows, size_t length, float size) {
        buffer.resize(rows * length);
        for (size_t r = 0; r < rows; ++r)
            random.row(matrix + which, r, size, buffer.data() + r * length, length);
        return buffer.data();
    };
    if (nodes > 0) {
        thresholds_.resize(nodes);
        random.row(matrix + node_biases, 0, balance, thresholds_.data(), nodes);
        for (size_t r = 0; r < nodes; ++r)
            random.row(matrix + in_matrix, r, inverse_root(hidden_), node_rows + r * hidden_, hidden_);
        packer.nodes(node_rows, thresholds_.data());
    }
    if (spec_.leaf_width > 0) {
        const size_t width = spec_.leaf_width;
        packer.up(filled(out_matrix, groups * width, hidden_, inverse_root(hidden_)));
        packer.up_bias(filled(output_biases, groups, width, 0.1F));
        packer.down(filled(shared_matrix, groups * width, hidden_, inverse_root(width)));
    }
    packer.output_bias(filled(output_biases + 2, groups, hidden_, 0.1F));
    if (shared > 0) {
        packer.shared_up(filled(shared_matrix + 2, shared, hidden_, inverse_root(hidden_)));
        packer.shared_up_bias(filled(shared_matrix + 3, 1, shared, 0.1F));
        packer.shared_down(filled(shared_matrix + 4, hidden_, shared, inverse_root(shared)));
    }
    leaf_forest_ = packer.forest();
}

void ForestPart::call(const KernelTable& kernels, const ForestCall& call) const {
    if (spec_.kind == PartKind::neuron_forest) {
        kernels.neuron_forest(precision_)(neuron_, call);
    } else {
        kernels.leaf_forest(precision_)(leaf_forest_, call);
    }
}

void ForestPart::run(const Tokens& tokens, float* y, bool accumulate) {
    tokens_ = tokens.count;
    parallel_for(threads_, tokens.count, forest_grain, [&](size_t begin, size_t end, int thread) {
        const Tokens part = tokens.slice(begin, end - begin);
        ForestCall c;
        c.x = part.x;
        c.x_scale = part.scale;
        c.tokens = part.count;
        c.y = y + begin * hidden_;
        c.accumulate = accumulate;
        c.routes = {leaf_.data() + begin * spec_.trees, margin_.data() + begin * spec_.trees};
        c.scratch = scratch_.data() + static_cast<size_t>(thread) * scratch_bytes_;
        call(kernels_, c);
    });
}

void ForestPart::run_scalar(const Tokens& token, float* y, uint32_t* leaf, float* margin) const {
    ForestCall c;
    c.x = token.x;
    c.x_scale = token.scale;
    c.tokens = 1;
    c.y = y;
    c.routes = {leaf, margin};
    c.scratch = scratch_.data();
    call(kernel_table(Isa::scalar), c);
}

size_t ForestPart::distinct_leaves() const {
    std::vector<uint64_t> seen;
    for (size_t i = 0; i < tokens_ * spec_.trees; ++i)
        seen.push_back(uint64_t{i % spec_.trees} << 32 | leaf_[i]);
    std::sort(seen.begin(), seen.end());
    return static_cast<size_t>(std::unique(seen.begin(), seen.end()) - seen.begin());
}

TouchedWeights ForestPart::touched(size_t second_level_bytes) const {
    TouchedWeights out;
    const bool neurons = spec_.kind == PartKind::neuron_forest;
    const size_t type_bytes = bytes_of(precision_);
    const size_t node_bytes = hidden_ * (neurons ? 2 * type_bytes : precision_ == TensorType::f32 ? 4 : 2);
    size_t before = 0;  // bytes of the levels so far
    const auto touch = [&](size_t distinct, size_t rows, size_t bytes, size_t in_all) {
        out.rows += distinct * rows;
        out.bytes += distinct * bytes;
        before += in_all * bytes;
        if (before > second_level_bytes) out.cold_bytes += distinct * bytes;
    };
    const size_t shared = leaf_forest_.shared_width;
    if (shared > 0) touch(1, 2 * shared, 2 * shared * hidden_ * type_bytes, 1);
    std::vector<uint64_t> places;  // the leaves, then their parents, level by level
    std::vector<size_t> distinct;
    for (size_t i = 0; i < tokens_ * spec_.trees; ++i)
        places.push_back(uint64_t{i % spec_.trees} << 32 | leaf_[i]);
    for (size_t level = 0; level <= spec_.depth; ++level) {
        std::sort(places.begin(), places.end());
        places.erase(std::unique(places.begin(), places.end()), places.end());
        distinct.push_back(places.size());
        for (uint64_t& place : places)
            place = (place & ~uint64_t{0xffffffff}) | (place & 0xffffffff) >> 1;
    }
    for (size_t level = 0; level <= spec_.depth; ++level) {
        const size_t in_all = spec_.trees << level, count = distinct[spec_.depth - level];
        if (neurons || level < spec_.depth) {
            touch(count, neurons ? 2 : 1, node_bytes, in_all);
        } else {
            touch(count, 2 * spec_.leaf_width,
                  2 * spec_.leaf_width * hidden_ * type_bytes + hidden_ * sizeof(float), in_all);
        }
    }
    return out;
}

std::string ForestPart::description() const {
    std::string text = std::string(spec_.kind == PartKind::neuron_forest ? "neuron" : "leaf") +
                       " forest by " + name_of(kernels_.isa);
    if (precision_ == TensorType::bf16) text += std::string(", ") + kernels_.bf16_products;
    if (precision_ == TensorType::s8) text += std::string(", ") + kernels_.s8_products;
    if (leaf_forest_.shared_width > 0)
        text += ", " + std::to_string(leaf_forest_.shared_width) + " shared neurons in its tiles";
    return text;
}

}  // namespace espalier
