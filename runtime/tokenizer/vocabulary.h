// A vocabulary as the model file stores it: all tokens end to end in one byte array, and where each starts.
// Nothing is copied; only the table from string to id is built, in about a millisecond for 30,000 tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

namespace espalier {

// A const Vocabulary may be used from any number of threads. The arrays it was built over must outlive it.
class Vocabulary {
   public:
    static constexpr size_t max_tokens = size_t{1} << 24;

    // Token i is bytes[offsets[i], offsets[i + 1]); offsets holds one entry more than there are tokens.
    // Throws Error(bad_model) where the offsets are not 0 … bytes.size() in rising order, where there are
    // more than max_tokens, and where the tokens are made to collide in the hash table.
    Vocabulary(std::span<const uint32_t> offsets, std::span<const char> bytes,
               std::pmr::memory_resource* memory);

    size_t size() const noexcept { return offsets_.size() - 1; }
    size_t longest_token() const noexcept { return longest_; }  // in bytes

    // The text of a token; id must be below size().
    std::string_view token(size_t id) const noexcept {
        return {bytes_.data() + offsets_[id], offsets_[id + 1] - offsets_[id]};
    }

    // The id of a token, -1 where there is none. Of equal tokens the last one counts, as it does where
    // Hugging Face reads a vocabulary file.
    int32_t find(std::string_view token) const noexcept { return find(hash(token), {}, token); }

    // The same for the token head + tail, given its hash: whoever extends a string byte by byte can carry
    // the hash along.
    int32_t find(uint64_t hash, std::string_view head, std::string_view tail) const noexcept;

    // FNV-1a, chosen because the hash of every prefix comes for free.
    static constexpr uint64_t empty_hash = 0xcbf29ce484222325u;
    static constexpr uint64_t extend_hash(uint64_t hash, char byte) noexcept {
        return (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
    }
    static constexpr uint64_t hash(std::string_view text) noexcept {
        uint64_t hash = empty_hash;
        for (char byte : text)
            hash = extend_hash(hash, byte);
        return hash;
    }

   private:
    void insert(uint32_t id);

    std::span<const uint32_t> offsets_;
    std::span<const char> bytes_;
    size_t longest_ = 0;
    // Open addressing, linear probing, at most half full. A slot is 0 (empty) or used bit, 7 bits of the
    // hash that spare most string comparisons, 24 bits of id.
    std::pmr::vector<uint32_t> slots_;
};

}  // namespace espalier
