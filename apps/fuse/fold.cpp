#include "apps/fuse/fold.h"

#include <algorithm>
#include <cmath>

namespace espalier {

void Fold::scale_rows(std::vector<float>& values) const {
    for (size_t i = 0; i < values.size() && !scale.empty(); ++i)
        values[i] = static_cast<float>(values[i] * scale[i % scale.size()]);
}

std::vector<double> Fold::products(const std::vector<float>& rows) const {
    std::vector<double> sums(offset.empty() ? 0 : rows.size() / offset.size());
    for (size_t r = 0; r < sums.size(); ++r) {
        for (size_t i = 0; i < offset.size(); ++i)
            sums[r] += static_cast<double>(rows[r * offset.size() + i]) * offset[i];
    }
    return sums;
}

NormValues norm_values(const SourceModel& source, uint32_t block) {
    const std::string name = "blocks." + std::to_string(block) + ".ffn.norm.";
    NormValues norm{source.values(name + "weight"), {}};
    norm.bias.assign(norm.weight.size(), 0.0F);
    if (source.file().find(name + "bias") != nullptr) norm.bias = source.values(name + "bias");
    return norm;
}

NormValues shared_norm(const SourceModel& source, const std::vector<uint32_t>& blocks) {
    NormValues last = norm_values(source, blocks.back());
    float largest = 0;
    for (const float weight : last.weight)
        largest = std::max(largest, std::fabs(weight));
    // Far smaller scales than the others' would leave quotients that the rest of a row's products drown.
    const float smallest = 1e-4F * largest;
    const bool divides = std::all_of(last.weight.begin(), last.weight.end(),
                                     [&](float weight) { return std::fabs(weight) > smallest; });
    if (divides) return last;
    std::fill(last.weight.begin(), last.weight.end(), 1.0F);
    std::fill(last.bias.begin(), last.bias.end(), 0.0F);
    return last;
}

Fold fold_of(const NormValues& own, const NormValues& shared) {
    Fold fold;
    if (own.weight != shared.weight) {
        for (size_t i = 0; i < own.weight.size(); ++i)
            fold.scale.push_back(static_cast<double>(own.weight[i]) / shared.weight[i]);
    }
    std::vector<double> offset(own.weight.size());
    for (size_t i = 0; i < offset.size(); ++i)
        offset[i] = own.bias[i] - (fold.scale.empty() ? 1.0 : fold.scale[i]) * shared.bias[i];
    if (std::any_of(offset.begin(), offset.end(), [](double v) { return v != 0; }))
        fold.offset = std::move(offset);
    return fold;
}

}  // namespace espalier
