// Layers that read norms of their own made to read one norm's output (FFN Fusion, arXiv 2503.18908, 5.5).
#pragma once

#include <vector>

#include "apps/fuse/source.h"

namespace espalier {

// What a layer read, from the shared n: scale * n + offset, component by component. Empty: as it is.
struct Fold {
    std::vector<double> scale, offset;
    bool moves() const { return !offset.empty(); }
    bool is_identity() const { return scale.empty() && offset.empty(); }

    // Rows [rows, hidden] that are multiplied by what is read.
    void scale_rows(std::vector<float>& values) const;
    // What the offset adds to each row's product.
    std::vector<double> products(const std::vector<float>& rows) const;
};

// The norm of a block: weight, and bias or zeros.
struct NormValues {
    std::vector<float> weight, bias;
};
NormValues norm_values(const SourceModel& source, uint32_t block);

// The norm that these blocks can share: the last one's, or where that cannot be divided by, ones and zeros.
NormValues shared_norm(const SourceModel& source, const std::vector<uint32_t>& blocks);
Fold fold_of(const NormValues& own, const NormValues& shared);

}  // namespace espalier
