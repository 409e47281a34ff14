// What this machine can do at most, measured: multiply-adds in registers, and reads from the third-level
// cache and from memory.
#pragma once

#include <memory_resource>

#include "kernels/cpu/peak.h"

namespace espalier {

struct CacheSizes {
    size_t second = 0, third = 0;  // bytes; of one core, and in all
};
CacheSizes cache_sizes();

// Of all `threads` together. 0: not known here.
struct Roofline {
    double gflops = 0;  // 10^9 operations a second, a multiply-add counted as two
    double third_level_gbs = 0, memory_gbs = 0;
};
// Takes about `seconds`, and as much again for filling what is read.
Roofline measure_roofline(Isa isa, TensorType type, int threads, double seconds,
                          std::pmr::memory_resource* memory);

// A time that nothing can beat: arithmetic at the peak rate, bytes at the measured bandwidth, whichever is
// longer, the other perfectly hidden behind it.
struct Bound {
    double us = 0;
    const char* by = "arithmetic";
};

// cold_weight_bytes: of the weights, those that the second-level cache cannot be holding.
Bound bound_of(const Roofline& roofline, const CacheSizes& caches, double operations, double io_bytes,
               double weight_bytes, double cold_weight_bytes);

// Writes through more than all caches hold.
class CacheEvictor {
   public:
    explicit CacheEvictor(std::pmr::memory_resource* memory);
    ~CacheEvictor();
    CacheEvictor(const CacheEvictor&) = delete;
    CacheEvictor& operator=(const CacheEvictor&) = delete;
    void evict();
    size_t bytes() const { return bytes_; }

   private:
    std::pmr::memory_resource* memory_;
    size_t bytes_;
    unsigned char* data_;
};

}  // namespace espalier
