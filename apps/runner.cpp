#include "apps/runner.h"

#include <algorithm>
#include <numeric>

namespace espalier {

void TokenizedTexts::add(const Context::Tokens& tokens) {
    ids_.insert(ids_.end(), tokens.ids.begin(), tokens.ids.end());
    types_.insert(types_.end(), tokens.types.begin(), tokens.types.end());
    ends_.push_back(ids_.size());
    truncated_ += tokens.truncated ? 1 : 0;
}

void for_each_batch(const Context& context, const TokenizedTexts& texts, bool sorted,
                    const std::function<void(const Batch& batch, std::span<const uint32_t> members)>& use) {
    std::vector<uint32_t> order(texts.size());
    std::iota(order.begin(), order.end(), 0u);
    if (sorted)
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t a, uint32_t b) { return texts.length(a) > texts.length(b); });
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;
    std::vector<uint32_t> offsets;
    for (size_t first = 0; first < order.size();) {
        ids.clear();
        types.clear();
        offsets.assign(1, 0);
        size_t next = first;
        while (next < order.size() && next - first < context.max_sequences() &&
               ids.size() + texts.length(order[next]) <= context.max_tokens()) {
            const auto text_ids = texts.ids(order[next]);
            const auto text_types = texts.types(order[next]);
            ids.insert(ids.end(), text_ids.begin(), text_ids.end());
            types.insert(types.end(), text_types.begin(), text_types.end());
            offsets.push_back(static_cast<uint32_t>(ids.size()));
            ++next;
        }
        use({ids, types, offsets}, std::span(order).subspan(first, next - first));
        first = next;
    }
}

}  // namespace espalier
