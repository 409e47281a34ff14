// A CUDA device, and what its runtime answers as our errors. Needs CUDA's headers; host code and kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace espalier::cuda {

// Throws Error: out_of_memory; unsupported where there is no device, driver or code for the device; else
// internal. `what` was being done.
void check(cudaError_t result, const char* what);
inline void check_launch(const char* kernel) {
    check(cudaGetLastError(), kernel);
}

struct Device {
    int number = 0;
    int major = 0, minor = 0;  // compute capability
    int processors = 0;
    size_t block_memory = 0;     // bytes of shared memory that a block may ask for
    bool shares_memory = false;  // with the host, as on a Jetson
    char name[256] = {};

    bool has_bf16_products() const { return major >= 8; }
    bool begins_early() const { return major >= 9; }  // early.cuh
};

// Throws Error(unsupported) where there is no such device.
Device device(int number);

// Memory on the current device.
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(size_t bytes);
    Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();

    template <typename T>
    T* as() const {
        return static_cast<T*>(data_);
    }
    size_t bytes() const { return bytes_; }

   private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

// Memory of the host that a device copies to by itself.
class HostBuffer {
   public:
    HostBuffer() = default;
    explicit HostBuffer(size_t bytes);
    HostBuffer(HostBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    HostBuffer& operator=(HostBuffer&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    HostBuffer(const HostBuffer&) = delete;
    HostBuffer& operator=(const HostBuffer&) = delete;
    ~HostBuffer();

    template <typename T>
    T* as() const {
        return static_cast<T*>(data_);
    }

   private:
    void* data_ = nullptr;
};

// A kernel's limit of shared memory is raised once; asking twice does no harm. What it declares itself counts
// too, so that a little under 48 KiB may need it.
template <typename Kernel>
void allow_block_memory(Kernel* kernel, size_t bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "shared memory of a kernel");
}

inline unsigned blocks_for(size_t units, size_t each) {
    return static_cast<unsigned>((units + each - 1) / each);
}

}  // namespace espalier::cuda
