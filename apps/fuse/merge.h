// Parts of several layers as the fewest parts that compute their sum (FFN Fusion, theorem 3.1).
#pragma once

#include <memory>
#include <vector>

#include "apps/fuse/fold.h"

namespace espalier {

// A part of a layer, and how that layer's input comes from the shared one.
struct PartOrigin {
    uint32_t block = 0, part = 0;
    const PartSpec* spec = nullptr;
    std::shared_ptr<const Fold> fold;
};

struct MergedPart {
    PartSpec spec;
    std::vector<PartOrigin> origins;
};

// In order of their first origin. Throws Error(unsupported), see fuse.h.
std::vector<MergedPart> merge_parts(const std::vector<PartOrigin>& origins, const SourceModel& source);

// Adds the tensors of part number `to_part` of block `to_block`: copies where nothing changes, else values
// that are made when their turn to be written comes.
void add_merged(const std::shared_ptr<const SourceModel>& source, const MergedPart& part, uint32_t to_block,
                uint32_t to_part, Import& import);

}  // namespace espalier
