// Launches that begin before the ones in front of them have ended (programmatic dependent launch, compute
// capability 9.0): where work is as short as its launch, a chain of them then waits for memory alone. A
// kernel that may be launched so lets the next one begin, reads at most what nothing before it writes, and
// waits; what it waits for has waited itself, so that all before it has ended.
#pragma once

#include "kernels/cuda/device.h"

namespace espalier::cuda {

__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
}

// early: on a device that has it (Device::begins_early).
template <class... Parameters, class... Arguments>
void launch_early(bool early, void (*kernel)(Parameters...), dim3 grid, unsigned threads, cudaStream_t stream,
                  const Arguments&... arguments) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t launch{};
    launch.gridDim = grid;
    launch.blockDim = dim3(threads);
    launch.stream = stream;
    launch.attrs = &attribute;
    launch.numAttrs = early ? 1 : 0;
    check(cudaLaunchKernelEx(&launch, kernel, Parameters(arguments)...), "launching");
}

}  // namespace espalier::cuda
