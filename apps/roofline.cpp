#include "apps/roofline.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace espalier {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

volatile uint64_t sink;  // what was read is used

// The best rate of several repeats within the time: a peak is what was reached once.
template <typename Body>
double best_rate(double seconds, const Body& amount) {
    const auto start = Clock::now();
    double best = 0;
    do {
        const auto begin = Clock::now();
        const double done = amount();
        best = std::max(best, done / seconds_since(begin));
    } while (seconds_since(start) < seconds);
    return best;
}

}  // namespace

// The kernel's own account first: in virtual machines sysconf may report the host's third level, which is not
// all ours.
CacheSizes cache_sizes() {
    // What systems that do not say (containers, some Arm boards) most likely have.
    CacheSizes sizes{size_t{1} << 20, size_t{32} << 20};
    for (int index = 0; index < 8; ++index) {
        const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
        size_t level = 0, kilobytes = 0;
        std::ifstream(folder + "/level") >> level;
        std::ifstream(folder + "/size") >> kilobytes;  // "1024K"
        if (level == 2 && kilobytes > 0) sizes.second = kilobytes * 1024;
        if (level == 3 && kilobytes > 0) sizes.third = kilobytes * 1024;
    }
    return sizes;
}

Roofline measure_roofline(Isa isa, TensorType type, int threads, double seconds,
                          std::pmr::memory_resource* memory) {
    const PeakKernels peak = peak_kernels(isa, type);
    const auto n = static_cast<size_t>(threads);
    Roofline out;
    std::vector<uint64_t> done(n);
    if (peak.multiply_add != nullptr) {
        out.gflops = 2e-9 * best_rate(0.25 * seconds, [&] {
                         std::fill(done.begin(), done.end(), 0);
                         parallel_for(threads, n, 1, [&](size_t begin, size_t, int) {
                             done[begin] = peak.multiply_add(400000);
                         });
                         double total = 0;
                         for (const uint64_t d : done)
                             total += static_cast<double>(d);
                         return total;
                     });
    }
    if (peak.read == nullptr) return out;
    const CacheSizes caches = cache_sizes();
    const auto read_rate = [&](size_t bytes, double time) {
        const size_t part = bytes / n / 512 * 512;
        void* data = memory->allocate(bytes, 64);
        for (size_t i = 0; i < bytes / sizeof(uint64_t); ++i)
            static_cast<uint64_t*>(data)[i] = i * 0x9e3779b97f4a7c15u;
        const double rate = best_rate(time, [&] {
            parallel_for(threads, n, 1, [&](size_t begin, size_t, int) {
                done[begin] = peak.read(static_cast<const char*>(data) + begin * part, part);
            });
            for (const uint64_t d : done)
                sink = d;
            return static_cast<double>(part * n);
        });
        memory->deallocate(data, bytes, 64);
        return rate * 1e-9;
    };
    // A quarter of the third level: above every second level, below what neighbours may hold of the third.
    out.third_level_gbs = read_rate(std::max(caches.third / 4, 3 * caches.second * n), 0.25 * seconds);
    out.memory_gbs = read_rate(8 * caches.third, 0.5 * seconds);
    return out;
}

Bound bound_of(const Roofline& roofline, const CacheSizes& caches, double operations, double io_bytes,
               double weight_bytes, double cold_weight_bytes) {
    Bound bound;
    if (roofline.gflops > 0) bound.us = operations / roofline.gflops * 1e-3;
    const auto consider = [&](double bytes, double gbs, const char* by) {
        const double us = gbs > 0 ? bytes / gbs * 1e-3 : 0;
        if (us > bound.us) bound = {us, by};
    };
    const bool beyond_second = io_bytes > static_cast<double>(caches.second),
               beyond_third = io_bytes + weight_bytes > static_cast<double>(caches.third);
    consider(cold_weight_bytes + (beyond_second ? io_bytes : 0), roofline.third_level_gbs,
             "third-level cache");
    if (weight_bytes > static_cast<double>(caches.third)) {
        consider(weight_bytes + (beyond_third ? io_bytes : 0), roofline.memory_gbs, "memory");
    } else if (beyond_third) {
        consider(io_bytes, roofline.memory_gbs, "memory");
    }
    return bound;
}

CacheEvictor::CacheEvictor(std::pmr::memory_resource* memory)
    : memory_(memory),
      bytes_(std::max<size_t>(4 * cache_sizes().third, size_t{128} << 20)),
      data_(static_cast<unsigned char*>(memory->allocate(bytes_, 64))) {}

CacheEvictor::~CacheEvictor() {
    memory_->deallocate(data_, bytes_, 64);
}

void CacheEvictor::evict() {
    for (size_t i = 0; i < bytes_; i += 64)
        ++data_[i];
}

}  // namespace espalier
