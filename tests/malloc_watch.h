// Stands in for malloc, to count what the calling thread takes and to refuse one allocation. Under
// sanitizers, which bring a malloc of their own, for operator new and for malloc where our own code calls it;
// where the C library is not glibc, for operator new alone. espalier_watch_malloc(TARGET) puts it into a
// program.
#pragma once

#include <cstddef>

namespace espalier::test {

struct MallocWatch {
    size_t taken = 0, freed = 0;  // calls
    size_t live = 0,
           most = 0;     // bytes since it was switched on, and the most of them; whether granted or not
    size_t fail_at = 0;  // this allocation, counted from 1, is refused; 0: none
    bool on = false;
};
// Of this thread: only our own calls are judged.
extern thread_local MallocWatch malloc_watch;

// Whether malloc itself is watched, not only operator new.
extern const bool watches_malloc;

}  // namespace espalier::test
