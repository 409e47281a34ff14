// Splits a loop over the caller's number of threads. One OpenMP runtime serves everything (oneDNN uses the
// same); a build without threads runs the loop as it is.
#pragma once

#include <cstddef>

#include "kernels/cpu/denormals.h"

#if defined(ESPALIER_THREADS)
#include <omp.h>
#endif

namespace espalier {

// Calls body(begin, end, thread) once on each of at most `threads` equal, contiguous parts of [0, count).
// A part holds at least `grain` items, so that small loops do not pay for waking threads. body must not
// throw. Parts on several threads run with denormals flushed.
template <typename Body>
void parallel_for(int threads, size_t count, size_t grain, const Body& body) {
    size_t parts = grain == 0 ? count : count / grain;
    if (parts > static_cast<size_t>(threads)) parts = static_cast<size_t>(threads);
    if (parts <= 1) {
        if (count > 0) body(size_t{0}, count, 0);
        return;
    }
#if defined(ESPALIER_THREADS)
#pragma omp parallel num_threads(static_cast <int>(parts))
    {
        // The system may grant fewer threads than asked for: split by what is there.
        const auto n = static_cast<size_t>(omp_get_num_threads());
        const auto i = static_cast<size_t>(omp_get_thread_num());
        const size_t begin = count * i / n, end = count * (i + 1) / n;
        const FlushDenormals
            flush;  // the mode is a thread's own, and the pool's threads have others' work too
        if (begin < end) body(begin, end, static_cast<int>(i));
    }
#else
    body(size_t{0}, count, 0);
#endif
}

// Makes the calling thread's pool, or wakes it: before denormals are flushed, since a thread that is made
// later would inherit that mode for good.
inline void wake_threads([[maybe_unused]] int threads) {
#if defined(ESPALIER_THREADS)
    if (threads <= 1) return;
#pragma omp parallel num_threads(threads)
    { asm volatile(""); }  // an empty region would be left out
#endif
}

// Sets the thread count that oneDNN sees on the calling thread, for the duration of one call.
class ThreadCount {
   public:
    explicit ThreadCount([[maybe_unused]] int threads) {
#if defined(ESPALIER_THREADS)
        before_ = omp_get_max_threads();
        omp_set_num_threads(threads);
#endif
    }
    ThreadCount(const ThreadCount&) = delete;
    ThreadCount& operator=(const ThreadCount&) = delete;
    ~ThreadCount() {
#if defined(ESPALIER_THREADS)
        omp_set_num_threads(before_);
#endif
    }

   private:
    [[maybe_unused]] int before_ = 1;
};

}  // namespace espalier
