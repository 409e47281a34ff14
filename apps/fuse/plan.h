// What `fuse` does to a model, block by block, and how it is chosen.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model_format/spec.h"

namespace espalier {

// Blocks first .. last, both included.
struct BlockRange {
    uint32_t first = 0, last = 0;
    bool contains(uint32_t block) const { return first <= block && block <= last; }
    uint32_t size() const { return last - first + 1; }
    bool operator==(const BlockRange&) const = default;
};

struct FusePlan {
    std::vector<uint32_t> dropped;     // blocks that lose their attention, ascending
    std::vector<BlockRange> fused;     // blocks whose feed-forward layers become one, ascending
    std::vector<BlockRange> parallel;  // blocks that run beside each other, ascending

    bool empty() const { return dropped.empty() && fused.empty() && parallel.empty(); }
    // Whether the block still has attention when the plan is done.
    bool attends(const ModelSpec& spec, uint32_t block) const;
};

// "3-5,8": numbers and inclusive ranges. Throws Error(invalid_argument) that begins with `option`.
std::vector<BlockRange> parse_ranges(const std::string& option, const std::string& text);

// Throws Error(invalid_argument) that names the first range, block or overlap that cannot be. pairs: the
// first block of a fused run may have attention.
void check_plan(const ModelSpec& spec, const FusePlan& plan, bool pairs);

// Runs of neighbouring blocks without attention, as FFN Fusion takes them (arXiv 2503.18908).
// leave_last: all but the last of each run, which that paper found to matter; take_before: and the block with
// attention in front of the run. Only runs of two blocks or more.
std::vector<BlockRange> automatic_runs(const ModelSpec& spec, const FusePlan& plan, bool leave_last,
                                       bool take_before);

// Full blocks that run beside each other (as in that paper): time and again the window of up to four
// blocks with attention whose largest dependency is smallest (of equals the one of the smaller sum), that
// does not overlap those taken before. dependency: [blocks, blocks], row i: block i removed.
std::vector<BlockRange> parallel_windows(const ModelSpec& spec, const FusePlan& plan,
                                         std::span<const double> dependency, size_t count);

std::string range_text(const BlockRange& range);

}  // namespace espalier
