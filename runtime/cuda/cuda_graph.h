// Launches that are recorded once and launched again and again: a launch from the host takes microseconds, of
// which a short text's blocks would take hundreds.
#pragma once

#include "kernels/cuda/device.h"

namespace espalier {

class CudaGraph {
   public:
    // record: puts everything on the stream.
    template <class Record>
    CudaGraph(cudaStream_t stream, const Record& record) {
        cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording");
        cudaGraph_t graph = nullptr;
        try {
            record();
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            if (graph != nullptr) cudaGraphDestroy(graph);
            cudaGetLastError();
            throw;
        }
        cuda::check(cudaStreamEndCapture(stream, &graph), "recording");
        const cudaError_t made = cudaGraphInstantiate(&launches_, graph, 0);
        cudaGraphDestroy(graph);
        cuda::check(made, "recording");
    }
    CudaGraph(const CudaGraph&) = delete;
    CudaGraph& operator=(const CudaGraph&) = delete;
    ~CudaGraph() { cudaGraphExecDestroy(launches_); }

    void launch(cudaStream_t stream) const { cuda::check(cudaGraphLaunch(launches_, stream), "launching"); }

   private:
    cudaGraphExec_t launches_ = nullptr;
};

}  // namespace espalier
