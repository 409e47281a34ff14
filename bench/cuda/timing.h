// Timing on the device: work is recorded as a graph of several calls on different inputs, so that launches
// from the host cost nothing, and the median over launches of the graph is divided by the calls.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/device.h"

namespace espalier::cuda {

inline constexpr int calls_of_graph = 16;

// call(i): puts call number i on the stream. Microseconds of one call.
inline double median_us(cudaStream_t stream, int launches, const std::function<void(int)>& call) {
    for (int i = 0; i < calls_of_graph; ++i)
        call(i);  // what is loaded or chosen at the first call is, outside the recording
    check(cudaStreamSynchronize(stream), "warming up");
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t launch = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
    for (int i = 0; i < calls_of_graph; ++i)
        call(i);
    check(cudaStreamEndCapture(stream, &graph), "recording");
    check(cudaGraphInstantiate(&launch, graph, 0), "recording");
    cudaEvent_t start = nullptr, stop = nullptr;
    check(cudaEventCreate(&start), "an event");
    check(cudaEventCreate(&stop), "an event");
    std::vector<float> times;
    for (int i = 0; i < launches + 3; ++i) {
        float ms = 0;
        check(cudaEventRecord(start, stream), "timing");
        check(cudaGraphLaunch(launch, stream), "timing");
        check(cudaEventRecord(stop, stream), "timing");
        check(cudaEventSynchronize(stop), "timing");
        check(cudaEventElapsedTime(&ms, start, stop), "timing");
        if (i >= 3) times.push_back(ms);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    cudaGraphExecDestroy(launch);
    cudaGraphDestroy(graph);
    const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return 1000.0 * *middle / calls_of_graph;
}

}  // namespace espalier::cuda
