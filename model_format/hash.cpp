#include "model_format/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace espalier {

uint64_t hash_bytes(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

struct StreamingHash::State {
    XXH3_state_t value;
};

StreamingHash::StreamingHash() : state_(std::make_unique<State>()) {
    XXH3_64bits_reset(&state_->value);
}

StreamingHash::~StreamingHash() = default;

void StreamingHash::add(std::span<const std::byte> bytes) {
    XXH3_64bits_update(&state_->value, bytes.data(), bytes.size());
}

uint64_t StreamingHash::value() const {
    return XXH3_64bits_digest(&state_->value);
}

}  // namespace espalier
