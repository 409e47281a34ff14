#include "apps/layer_forest.h"

#include <algorithm>
#include <cmath>

#include "apps/layer_forest_part.h"

namespace espalier {
namespace {

// Random matrices of one part.
constexpr uint64_t matrices = 16;

// A dense part this small beside one leaf forest is computed in the forest's tiles, so that x is read and y
// written once.
constexpr uint32_t widest_shared = 512;

bool shares(std::span<const PartSpec> parts) {
    return parts.size() == 2 && parts[0].kind == PartKind::dense && parts[0].width <= widest_shared &&
           parts[1].kind == PartKind::leaf_forest;
}

}  // namespace

LayerFfn::LayerFfn(size_t hidden, std::span<const PartSpec> parts, TensorType precision,
                   const KernelTable& kernels, const DenseBackend& backend, int threads, size_t most_tokens,
                   const RandomRows& random, std::pmr::memory_resource* memory)
    : hidden_(hidden), precision_(precision) {
    const bool shared = shares(parts);
    uint64_t matrix = 1000 * matrices;
    for (const PartSpec& part : parts) {
        matrix += matrices;
        if (part.is_forest()) {
            forests_.push_back(std::make_unique<ForestPart>(hidden, part, shared ? parts[0].width : 0,
                                                            precision, kernels, threads, most_tokens, random,
                                                            matrix, memory));
        } else if (!shared) {
            dense_.push_back(std::make_unique<DenseFfn>(hidden, part.width, precision, backend, threads,
                                                        random, matrix, memory));
        }
    }
    if (dense_.size() > 1) extra_ = HugeBlock(padded_rows(most_tokens) * hidden * sizeof(float), memory);
}

LayerFfn::~LayerFfn() = default;

size_t LayerFfn::estimated_bytes(size_t hidden, std::span<const PartSpec> parts, TensorType precision) {
    double bytes = 0;
    for (const PartSpec& part : parts)
        bytes +=
            (2.0 * static_cast<double>(part.stored_neurons()) + static_cast<double>(part.stored_nodes())) *
            static_cast<double>(hidden) *
            (part.kind == PartKind::neuron_forest ? static_cast<double>(bytes_of(precision)) : 8.0);
    return bytes < 1e18 ? static_cast<size_t>(bytes) : size_t{1} << 60;
}

void LayerFfn::plan(const Tokens& tokens, float* y) {
    for (const auto& part : dense_)
        part->plan(tokens, y);
}

void LayerFfn::run(const Tokens& tokens, float* y) {
    bool written = false;
    for (const auto& part : dense_) {
        auto* extra = extra_.as<float>();
        part->run(tokens, written ? extra : y);
        for (size_t i = 0; i < tokens.count * hidden_ && written; ++i)
            y[i] += extra[i];
        written = true;
    }
    for (const auto& part : forests_) {
        part->run(tokens, y, written);
        written = true;
    }
}

size_t LayerFfn::distinct_leaves() const {
    size_t total = 0;
    for (const auto& part : forests_)
        total += part->distinct_leaves();
    return total;
}

TouchedWeights LayerFfn::touched(size_t second_level_bytes) const {
    TouchedWeights all;
    size_t left = second_level_bytes;
    const auto add = [&](const TouchedWeights& t) {
        all.rows += t.rows;
        all.bytes += t.bytes;
        all.cold_bytes += t.cold_bytes;
        left -= std::min(left, t.bytes - t.cold_bytes);
    };
    for (const auto& part : dense_) {
        const size_t bytes = part->weight_bytes();
        add({2 * part->width(), bytes, bytes <= left ? 0 : bytes});
    }
    for (const auto& part : forests_)
        add(part->touched(left));
    return all;
}

const uint32_t* LayerFfn::first_leaves(size_t& stride) const {
    if (forests_.empty()) return nullptr;
    stride = forests_[0]->trees();
    return forests_[0]->leaves();
}

LayerCheck LayerFfn::check(const Tokens& tokens, const TokenBuffer& buffer, const float* y) const {
    // Dense references cost a pass over all weights a token.
    const size_t most = dense_.empty() ? 1024 : 8;
    const size_t step = std::max<size_t>(1, tokens.count / most);
    LayerCheck out;
    std::vector<float> x(hidden_), expected(hidden_);
    std::vector<double> part_y(hidden_), sum(hidden_);
    size_t walks = 0, equal = 0, unexplained = 0, compared = 0;
    double squares = 0, largest = 0;
    for (size_t t = 0; t < tokens.count && out.tokens < most; t += step, ++out.tokens) {
        std::fill(sum.begin(), sum.end(), 0.0);
        buffer.widen(t, true, x.data());
        for (const auto& part : dense_) {
            part->reference(x.data(), part_y.data());
            for (size_t i = 0; i < hidden_; ++i)
                sum[i] += part_y[i];
        }
        for (size_t i = 0; i < hidden_; ++i)
            expected[i] = static_cast<float>(sum[i]);
        bool same = true;
        for (const auto& part : forests_) {
            const size_t trees = part->trees();
            std::vector<uint32_t> leaf(trees);
            std::vector<float> margin(trees);
            part->run_scalar(tokens.slice(t, 1), expected.data(), leaf.data(), margin.data());
            for (size_t k = 0; k < trees; ++k, ++walks) {
                if (leaf[k] == part->leaves()[t * trees + k]) {
                    ++equal;
                    continue;
                }
                same = false;
                if (margin[k] >= hairline) ++unexplained;
            }
        }
        if (!same) continue;
        ++compared;
        for (size_t i = 0; i < hidden_; ++i) {
            squares += static_cast<double>(expected[i]) * expected[i];
            // Written so that a NaN is the largest of all.
            const double difference = std::fabs(static_cast<double>(y[t * hidden_ + i]) - expected[i]);
            if (!(difference <= largest)) largest = difference;
        }
    }
    if (walks > 0) {
        out.equal_leaves = static_cast<double>(equal) / static_cast<double>(walks);
        out.unexplained_leaves = static_cast<double>(unexplained) / static_cast<double>(walks);
    }
    if (compared > 0)
        out.max_difference = largest / std::sqrt(squares / static_cast<double>(compared * hidden_));
    return out;
}

size_t LayerFfn::weight_bytes() const {
    size_t bytes = 0;
    for (const auto& part : dense_)
        bytes += part->weight_bytes();
    for (const auto& part : forests_)
        bytes += part->weight_bytes();
    return bytes;
}

std::string LayerFfn::description() const {
    std::string text;
    for (const auto& part : dense_)
        text += (text.empty() ? "" : "; ") + std::string("dense:") + std::to_string(part->width()) +
                " by the dense backend";
    for (const auto& part : forests_)
        text += (text.empty() ? "" : "; ") + part->description();
    return text;
}

}  // namespace espalier
