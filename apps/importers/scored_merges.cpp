#include "apps/importers/scored_merges.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>

namespace espalier {

std::vector<BpeMerge> scored_merges(const ScoredPieces& pieces) {
    std::unordered_map<std::string_view, uint32_t> ids;
    for (uint32_t i = 0; i < pieces.texts.size(); ++i)
        ids.emplace(pieces.texts[i], i);
    std::map<float, uint32_t, std::greater<>> ranks;
    for (const float score : pieces.scores)
        ranks.emplace(score, 0);
    uint32_t next = 0;
    for (auto& [score, rank] : ranks)
        rank = next++;
    std::vector<BpeMerge> merges;
    for (const auto& [text, id] : ids) {
        for (size_t cut = 1; cut < text.size(); ++cut) {
            const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
            if (left != ids.end() && right != ids.end())
                merges.push_back({left->second, right->second, id, ranks.at(pieces.scores[id])});
        }
    }
    std::sort(merges.begin(), merges.end(), [](const BpeMerge& a, const BpeMerge& b) {
        return a.rank != b.rank ? a.rank < b.rank : a.left != b.left ? a.left < b.left : a.right < b.right;
    });
    return merges;
}

}  // namespace espalier
