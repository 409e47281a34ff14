// Random numbers for measuring: fast, the same everywhere, never zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace espalier {

inline uint64_t next_random(uint64_t& state) {  // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// Nearly normal with deviation 1: the sum of four uniform 16-bit numbers, so within 3.5 of 0.
inline float random_normal(uint64_t& state) {
    const uint64_t bits = next_random(state);
    const auto sum =
        static_cast<float>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (sum - 131070.0F) * (1.0F / 37837.2F);
}
inline constexpr float largest_normal = 3.5F;

// Weights of any size at the speed of copying: row r of matrix m lies at a random place in a table of 2^20
// normals. A row can be had again at any time, so that references need no second copy of gigabytes.
class RandomRows {
   public:
    explicit RandomRows(uint64_t seed) : seed_(seed), table_(size + piece) {
        for (float& value : table_)
            value = random_normal(seed);
    }
    void row(uint64_t matrix, uint64_t row, float scale, float* target, size_t count) const {
        uint64_t state = (seed_ ^ matrix * 0x9e3779b97f4a7c15u) + row * 0xda942042e4dd58b5u;
        for (size_t start = 0; start < count; start += piece) {
            const float* source = table_.data() + next_random(state) % size;
            const size_t length = count - start < piece ? count - start : piece;
            for (size_t i = 0; i < length; ++i)
                target[start + i] = scale * source[i];
        }
    }

   private:
    static constexpr size_t size = size_t{1} << 20, piece = size_t{1} << 16;
    uint64_t seed_;
    std::vector<float> table_;
};

}  // namespace espalier
