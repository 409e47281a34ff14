#include "kernels/cuda/device.h"

#include <cstring>

#include "base/error.h"

namespace espalier::cuda {

void check(cudaError_t result, const char* what) {
    if (result == cudaSuccess) return;
    cudaGetLastError();  // an error that is not sticky is reported once
    switch (result) {
        case cudaErrorMemoryAllocation:
            throw Error(Status::out_of_memory, "cuda: %s: out of memory on the device", what);
        case cudaErrorNoDevice:
        case cudaErrorInsufficientDriver:
        case cudaErrorStubLibrary:
        case cudaErrorInvalidDevice:
        case cudaErrorSystemDriverMismatch:
        case cudaErrorCompatNotSupportedOnDevice:
            throw Error(Status::unsupported, "cuda: %s: %s", what, cudaGetErrorString(result));
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorUnsupportedPtxVersion:
            throw Error(Status::unsupported,
                        "cuda: %s: this build has no code for the device (CMAKE_CUDA_ARCHITECTURES)", what);
        default:
            throw Error(Status::internal, "cuda: %s: %s", what, cudaGetErrorString(result));
    }
}

Device device(int number) {
    int count = 0;
    check(cudaGetDeviceCount(&count), "looking for a device");
    if (number < 0 || number >= count)
        throw Error(Status::unsupported, "cuda: expected a device below %d, found %d", count, number);
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, number), "asking for a device's properties");
    Device device;
    device.number = number;
    device.major = properties.major;
    device.minor = properties.minor;
    device.processors = properties.multiProcessorCount;
    device.block_memory = properties.sharedMemPerBlockOptin;
    device.shares_memory = properties.integrated != 0 && properties.canMapHostMemory != 0;
    static_assert(sizeof(device.name) == sizeof(properties.name));
    std::memcpy(device.name, properties.name, sizeof(device.name));
    return device;
}

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
    if (bytes > 0) check(cudaMalloc(&data_, bytes), "memory for weights and activations");
}

Buffer::~Buffer() {
    if (data_ != nullptr) cudaFree(data_);
}

HostBuffer::HostBuffer(size_t bytes) {
    if (bytes > 0) check(cudaMallocHost(&data_, bytes), "memory for results");
}

HostBuffer::~HostBuffer() {
    if (data_ != nullptr) cudaFreeHost(data_);
}

}  // namespace espalier::cuda
