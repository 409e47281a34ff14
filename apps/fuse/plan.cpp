#include "apps/fuse/plan.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/error.h"

namespace espalier {
namespace {

uint32_t block_number(const std::string& option, const std::string& text, std::string_view word) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size())
        throw Error(Status::invalid_argument,
                    "%s: expected numbers of layers and ranges A-B, parted by commas, found '%.60s'",
                    option.c_str(), text.c_str());
    return value;
}

void check_ranges(const ModelSpec& spec, const std::vector<BlockRange>& ranges, const char* what) {
    const BlockRange* before = nullptr;
    for (const BlockRange& range : ranges) {
        if (range.first > range.last || range.last >= spec.blocks.size())
            throw Error(Status::invalid_argument,
                        "layers %u-%u: expected layers of 0 to %zu, the first not behind the last",
                        range.first, range.last, spec.blocks.size() - 1);
        if (range.size() < 2)
            throw Error(Status::invalid_argument,
                        "layers %u-%u: expected two layers or more to %s, found one", range.first, range.last,
                        what);
        if (before != nullptr && range.first <= before->last)
            throw Error(Status::invalid_argument, "layers %u-%u: layer %u is among layers %u-%u already",
                        range.first, range.last, range.first, before->first, before->last);
        before = &range;
    }
}

void check_fused(const ModelSpec& spec, const FusePlan& plan, const BlockRange& range, bool pairs) {
    for (uint32_t b = range.first; b <= range.last; ++b) {
        const bool allowed = pairs && b == range.first;
        if (plan.attends(spec, b) && !allowed)
            throw Error(Status::invalid_argument,
                        "layers %u-%u: layer %u has attention (--drop-attention removes it%s)", range.first,
                        range.last, b, b == range.first ? "; --pairs lets the first keep it" : "");
    }
    for (uint32_t b = range.first; b <= range.last + 1 && b < spec.blocks.size(); ++b) {
        if (spec.blocks[b].has(block_flag::parallel))
            throw Error(Status::invalid_argument,
                        "layers %u-%u: layer %u runs beside the one in front of it: they cannot be fused",
                        range.first, range.last, b);
    }
}

struct Window {
    BlockRange blocks;
    double largest = 0, sum = 0;
    bool before(const Window& other) const {
        return largest < other.largest || (largest == other.largest && sum < other.sum);
    }
};

Window window_of(const BlockRange& range, std::span<const double> dependency, size_t blocks) {
    Window window{range};
    for (size_t i = range.first; i <= range.last; ++i) {
        for (size_t j = i + 1; j <= range.last; ++j) {
            window.largest = std::max(window.largest, dependency[i * blocks + j]);
            window.sum += dependency[i * blocks + j];
        }
    }
    return window;
}

}  // namespace

bool FusePlan::attends(const ModelSpec& spec, uint32_t block) const {
    return spec.blocks[block].has(block_flag::attention) &&
           !std::binary_search(dropped.begin(), dropped.end(), block);
}

std::string range_text(const BlockRange& range) {
    return range.size() == 1 ? std::to_string(range.first)
                             : std::to_string(range.first) + "-" + std::to_string(range.last);
}

std::vector<BlockRange> parse_ranges(const std::string& option, const std::string& text) {
    std::vector<BlockRange> ranges;
    for (size_t start = 0; start <= text.size();) {
        const size_t end = std::min(text.find(',', start), text.size());
        const std::string_view word = std::string_view(text).substr(start, end - start);
        const size_t dash = word.find('-');
        BlockRange range;
        range.first = block_number(option, text, word.substr(0, dash));
        range.last =
            dash == std::string_view::npos ? range.first : block_number(option, text, word.substr(dash + 1));
        ranges.push_back(range);
        start = end + 1;
    }
    std::sort(ranges.begin(), ranges.end(),
              [](const BlockRange& a, const BlockRange& b) { return a.first < b.first; });
    return ranges;
}

void check_plan(const ModelSpec& spec, const FusePlan& plan, bool pairs) {
    for (const uint32_t b : plan.dropped) {
        if (b >= spec.blocks.size())
            throw Error(Status::invalid_argument, "--drop-attention: expected layers of 0 to %zu, found %u",
                        spec.blocks.size() - 1, b);
        if (!spec.blocks[b].has(block_flag::attention))
            throw Error(Status::invalid_argument, "--drop-attention: layer %u has no attention", b);
    }
    check_ranges(spec, plan.fused, "fuse");
    check_ranges(spec, plan.parallel, "run beside each other");
    for (const BlockRange& range : plan.fused)
        check_fused(spec, plan, range, pairs);
}

std::vector<BlockRange> automatic_runs(const ModelSpec& spec, const FusePlan& plan, bool leave_last,
                                       bool take_before) {
    std::vector<BlockRange> runs;
    const auto blocks = static_cast<uint32_t>(spec.blocks.size());
    for (uint32_t first = 0; first < blocks; ++first) {
        if (plan.attends(spec, first)) continue;
        uint32_t end = first;
        while (end < blocks && !plan.attends(spec, end))
            ++end;
        const uint32_t start = take_before && first > 0 ? first - 1 : first,
                       stop = leave_last ? end - 1 : end;
        if (stop >= start + 2) runs.push_back({start, stop - 1});
        first = end;
    }
    return runs;
}

std::vector<BlockRange> parallel_windows(const ModelSpec& spec, const FusePlan& plan,
                                         std::span<const double> dependency, size_t count) {
    constexpr uint32_t widest = 4;
    const auto blocks = static_cast<uint32_t>(spec.blocks.size());
    std::vector<BlockRange> taken;
    const auto is_free = [&](uint32_t block) {
        const auto holds = [&](const BlockRange& range) { return range.contains(block); };
        return plan.attends(spec, block) && !spec.blocks[block].has(block_flag::parallel) &&
               std::none_of(plan.fused.begin(), plan.fused.end(), holds) &&
               std::none_of(taken.begin(), taken.end(), holds);
    };
    for (uint32_t width = widest; width >= 2 && taken.size() < count;) {
        std::optional<Window> best;
        for (uint32_t first = 0; first + width <= blocks; ++first) {
            bool all = true;
            for (uint32_t b = first; b < first + width; ++b)
                all = all && is_free(b);
            if (!all) continue;
            const Window window = window_of({first, first + width - 1}, dependency, blocks);
            if (!best || window.before(*best)) best = window;
        }
        if (best) {
            taken.push_back(best->blocks);
        } else {
            --width;
        }
    }
    std::sort(taken.begin(), taken.end(),
              [](const BlockRange& a, const BlockRange& b) { return a.first < b.first; });
    return taken;
}

}  // namespace espalier
