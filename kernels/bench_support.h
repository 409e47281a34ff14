// What the micro-benchmarks share: random non-zero numbers, and a cycle of inputs so that no call sees the
// same tokens as the one before (branches and caches would learn them).
#pragma once

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>

#include "kernels/cpu/kernel_table.h"

namespace espalier::bench {

struct Free {
    void operator()(void* pointer) const { std::free(pointer); }
};

// 64-byte aligned, readable 64 floats past its end, as the kernels ask for.
class Numbers {
   public:
    explicit Numbers(size_t count, float scale = 1, uint64_t seed = 1)
        : count_(count), data_(static_cast<float*>(std::aligned_alloc(64, (count + 64 + 15) / 16 * 64))) {
        std::mt19937_64 random(seed);
        std::normal_distribution<float> normal(0, scale);
        // The normal distribution is slow: a table of 64 Ki numbers, read from random places.
        std::unique_ptr<float[]> table(new float[65536]);
        for (size_t i = 0; i < 65536; ++i)
            table[i] = normal(random);
        for (size_t i = 0; i < count + 64; ++i) {
            if (i % 1024 == 0) start_ = random();
            data_.get()[i] = table[(start_ + i) & 65535];
        }
    }
    float* data() { return data_.get(); }
    const float* data() const { return data_.get(); }
    size_t size() const { return count_; }

   private:
    size_t count_;
    uint64_t start_ = 0;
    std::unique_ptr<float, Free> data_;
};

// `sets` inputs of `count` floats that a loop goes through in turn.
class Inputs {
   public:
    Inputs(size_t count, size_t sets) : count_(count), sets_(sets), numbers_(count * sets, 1, 99) {}
    const float* next() { return numbers_.data() + at_++ % sets_ * count_; }

   private:
    size_t count_, sets_, at_ = 0;
    Numbers numbers_;
};

// Enough sets that 4,096 tokens pass before one comes again.
inline size_t sets_for(size_t batch) {
    return batch >= 2048 ? 2 : 4096 / batch;
}

inline float weight_scale(size_t inputs) {
    return 1 / std::sqrt(static_cast<float>(inputs));
}

}  // namespace espalier::bench
