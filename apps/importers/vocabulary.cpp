#include "apps/importers/vocabulary.h"

#include <cstring>

#include "base/error.h"

namespace espalier {
namespace {

template <typename T>
TensorSource tensor_of(const char* name, TensorType type, std::vector<uint64_t> dimensions,
                       std::vector<T> values) {
    TensorSource source;
    source.name = name;
    source.type = type;
    source.dimensions = std::move(dimensions);
    source.data = [values = std::move(values)] {
        std::vector<std::byte> bytes(values.size() * sizeof(T));
        if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
        return bytes;
    };
    return source;
}

}  // namespace

JoinedTokens joined(const std::vector<std::string>& tokens) {
    JoinedTokens all{{0}, {}};
    for (const std::string& token : tokens) {
        all.bytes.insert(all.bytes.end(), token.begin(), token.end());
        all.offsets.push_back(static_cast<uint32_t>(all.bytes.size()));
    }
    return all;
}

void add_vocabulary(Import& import, const std::vector<std::string>& tokens) {
    auto [offsets, bytes] = joined(tokens);
    const uint64_t entries = offsets.size(), length = bytes.size();
    import.ready.push_back(tensor_of("tokenizer.offsets", TensorType::u32, {entries}, std::move(offsets)));
    import.ready.push_back(tensor_of("tokenizer.bytes", TensorType::u8, {length}, std::move(bytes)));
}

void add_merges(Import& import, const std::vector<BpeMerge>& merges) {
    std::vector<uint32_t> values;
    for (const BpeMerge& m : merges)
        values.insert(values.end(), {m.left, m.right, m.both, m.rank});
    import.ready.push_back(
        tensor_of("tokenizer.merges", TensorType::u32, {merges.size(), 4}, std::move(values)));
}

void add_added_tokens(Import& import, const std::vector<uint32_t>& added) {
    import.ready.push_back(tensor_of("tokenizer.added", TensorType::u32, {added.size() / 2, 2}, added));
}

uint32_t limited_tokens(const ModelSpec& spec, uint32_t max_tokens) {
    if (max_tokens > spec.max_positions)
        throw Error(Status::invalid_argument,
                    "--max-tokens: expected at most %u (the model's positions), found %u", spec.max_positions,
                    max_tokens);
    return max_tokens > 0 ? max_tokens : spec.max_positions;
}

}  // namespace espalier
