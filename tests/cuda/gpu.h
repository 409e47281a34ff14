// What tests on a GPU share.
#pragma once

#include <cuda_runtime.h>

#include <cstdlib>

#include "tests/skip.h"

namespace espalier::test {

// Without one the test is skipped, and says so.
inline bool has_gpu() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return true;
    skip("no GPU");
    return false;
}

// Under compute-sanitizer's racecheck (scripts/cuda_check.sh), which looks at every access to shared memory:
// as few tokens and runs as launch every kernel that the tests launch otherwise.
inline bool is_brief() {
    return std::getenv("ESPALIER_BRIEF_TESTS") != nullptr;
}

}  // namespace espalier::test
