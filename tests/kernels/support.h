// What the kernel tests share: seeded numbers, buffers that notice being overrun, and error budgets.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "kernels/cpu/isa.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace espalier::test {

// splitmix64: the same numbers on every machine and standard library.
class Random {
   public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    size_t between(size_t low, size_t high) { return low + next() % (high - low + 1); }
    bool coin() { return (next() & 1) != 0; }
    float uniform(float low, float high) {
        return low + (high - low) * static_cast<float>(static_cast<double>(next() >> 11) * 0x1p-53);
    }
    // Nearly normal, deviation 1.
    float normal() {
        float sum = 0;
        for (int i = 0; i < 4; ++i)
            sum += uniform(-1, 1);
        return sum * 0.8660254F;
    }
    float small_integer(int most) {
        return static_cast<float>(static_cast<int>(between(0, 2 * most)) - most);
    }
    template <typename T>
    T pick(std::initializer_list<T> choices) {
        return choices.begin()[next() % choices.size()];
    }

   private:
    uint64_t state_;
};

// `count` values between guards. The guards hold a signalling pattern that check() looks for and that
// AddressSanitizer may not read; the `readable` values behind the end may be read (they are NaN, so that
// using them shows) but not written. Values start at a multiple of 64 if `aligned`, else only of 16.
template <typename T>
class Buffer {
   public:
    explicit Buffer(size_t count, size_t readable = 0, bool aligned = false)
        : count_(count), readable_(readable), start_(guard + (aligned ? 0 : 16)) {
        total_ = (start_ + (count + readable) * sizeof(T) + guard + 63) / 64 * 64;
        bytes_ = static_cast<unsigned char*>(::operator new (total_, std::align_val_t{64}));
        for (size_t i = 0; i < total_; ++i)
            bytes_[i] = canary(i);
        for (size_t i = 0; i < count; ++i)
            data()[i] = T{};
        poison(true);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        poison(false);
        ::operator delete (bytes_, std::align_val_t{64});
    }
    T* data() { return reinterpret_cast<T*>(bytes_ + start_); }
    const T* data() const { return reinterpret_cast<const T*>(bytes_ + start_); }
    size_t size() const { return count_; }
    T& operator[](size_t i) { return data()[i]; }
    const T& operator[](size_t i) const { return data()[i]; }
    T* begin() { return data(); }
    T* end() { return data() + count_; }

    // No byte outside the values was written.
    bool intact() {
        poison(false);
        bool good = true;
        for (size_t i = 0; i < total_; ++i) {
            if (i >= start_ && i < start_ + count_ * sizeof(T)) continue;
            good = good && bytes_[i] == canary(i);
        }
        poison(true);
        return good;
    }

   private:
    static constexpr size_t guard = 128;
    // As a float: NaN.
    static unsigned char canary(size_t i) {
        return i % 4 == 3 ? 0x7f : static_cast<unsigned char>(0xa1 + i % 4);
    }

    void poison([[maybe_unused]] bool on) {
#if defined(__SANITIZE_ADDRESS__)
        const size_t end = start_ + (count_ + readable_) * sizeof(T);
        if (on) {
            ASAN_POISON_MEMORY_REGION(bytes_, start_);
            ASAN_POISON_MEMORY_REGION(bytes_ + end, total_ - end);
        } else {
            ASAN_UNPOISON_MEMORY_REGION(bytes_, total_);
        }
#endif
    }

    size_t count_, readable_, start_, total_;
    unsigned char* bytes_;
};

inline void fill_normal(Buffer<float>& buffer, Random& random, float scale = 1) {
    for (float& value : buffer)
        value = scale * random.normal();
}
inline void fill_integers(Buffer<float>& buffer, Random& random, int most) {
    for (float& value : buffer)
        value = random.small_integer(most);
}

// Error budgets are multiples of the unit roundoff. A sum of n products rounded one by one errs by at most
// n units of the sum of absolute values, and by about sqrt(n) when roundings are independent, as here.
inline constexpr double unit = 0x1p-24;
inline double sum_budget(size_t terms, double absolute_sum) {
    return (4.0 + 2.0 * std::sqrt(static_cast<double>(terms))) * unit * absolute_sum;
}

// doctest prints a std::string, but only the address of a const char*.
template <typename T>
std::string named(T value) {
    return name_of(value);
}

inline bool same_bits(const float* a, const float* b, size_t count) {
    return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}
inline bool same_class(float a, float b) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
    if (std::isinf(a) || std::isinf(b)) return a == b;
    return true;
}

// The largest share of its budget that any error took; over 1 is a failure.
class Budget {
   public:
    void add(double found, double expected, double allowed) {
        const double error = std::fabs(found - expected);
        const double share = error == 0 ? 0 : error / (allowed + std::numeric_limits<float>::denorm_min());
        if (std::isnan(found) != std::isnan(expected)) {
            worst_ = INFINITY;
        } else if (share > worst_) {
            worst_ = share;
        }
    }
    double worst() const { return worst_; }

   private:
    double worst_ = 0;
};

}  // namespace espalier::test
