#include "runtime/tokenizer/vocabulary.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace espalier {
namespace {

constexpr uint32_t used = uint32_t{1} << 31;
constexpr uint32_t id_mask = (uint32_t{1} << 24) - 1;
// A table at most half full has runs of tens of slots; only tokens chosen to collide make longer ones,
// and those would make loading quadratic.
constexpr size_t longest_probe = 512;

constexpr size_t home_of(uint64_t hash) {
    return hash ^ (hash >> 32);
}
constexpr uint32_t tag_of(uint64_t hash) {
    return used | static_cast<uint32_t>(hash >> 57) << 24;
}

void check_offsets(std::span<const uint32_t> offsets, size_t bytes) {
    if (offsets.empty()) throw Error(Status::bad_model, "vocabulary: no offsets, expected at least one");
    const size_t tokens = offsets.size() - 1;
    if (tokens > Vocabulary::max_tokens)
        throw Error(Status::bad_model, "vocabulary: %zu tokens, at most %zu can be read", tokens,
                    Vocabulary::max_tokens);
    if (offsets.front() != 0)
        throw Error(Status::bad_model, "vocabulary: the first offset is %u, expected 0", offsets.front());
    for (size_t i = 0; i < tokens; ++i)
        if (offsets[i + 1] < offsets[i])
            throw Error(Status::bad_model, "vocabulary: token %zu ends at byte %u, before its start %u", i,
                        offsets[i + 1], offsets[i]);
    if (offsets.back() != bytes)
        throw Error(Status::bad_model, "vocabulary: the last offset is %u, expected the %zu bytes of text",
                    offsets.back(), bytes);
}

}  // namespace

Vocabulary::Vocabulary(std::span<const uint32_t> offsets, std::span<const char> bytes,
                       std::pmr::memory_resource* memory)
    : offsets_(offsets), bytes_(bytes), slots_(memory) {
    check_offsets(offsets, bytes.size());
    slots_.assign(std::bit_ceil(std::max<size_t>(2 * size(), 16)), 0);
    for (size_t id = 0; id < size(); ++id) {
        insert(static_cast<uint32_t>(id));
        longest_ = std::max(longest_, token(id).size());
    }
}

void Vocabulary::insert(uint32_t id) {
    const uint64_t key = hash(token(id));
    const size_t mask = slots_.size() - 1;
    for (size_t probe = 0; probe < longest_probe; ++probe) {
        uint32_t& slot = slots_[(home_of(key) + probe) & mask];
        const bool equal = (slot & ~id_mask) == tag_of(key) && token(slot & id_mask) == token(id);
        if (slot != 0 && !equal) continue;
        slot = tag_of(key) | id;
        return;
    }
    throw Error(Status::bad_model, "vocabulary: token %u and %zu others collide in the hash table", id,
                longest_probe);
}

int32_t Vocabulary::find(uint64_t hash, std::string_view head, std::string_view tail) const noexcept {
    const size_t mask = slots_.size() - 1;
    for (size_t at = home_of(hash) & mask; slots_[at] != 0; at = (at + 1) & mask) {
        if ((slots_[at] & ~id_mask) != tag_of(hash)) continue;
        const uint32_t id = slots_[at] & id_mask;
        const std::string_view candidate = token(id);
        if (candidate.size() == head.size() + tail.size() && candidate.starts_with(head) &&
            candidate.ends_with(tail))
            return static_cast<int32_t>(id);
    }
    return -1;
}

}  // namespace espalier
