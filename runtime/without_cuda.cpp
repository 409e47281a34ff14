// In place of the CUDA backend in a build without it (ESPALIER_CUDA=OFF).
#include "base/error.h"
#include "runtime/device_encoder.h"

namespace espalier {

bool cuda_compiled_in() noexcept {
    return false;
}

std::unique_ptr<DeviceEncoder> make_cuda_encoder(const Model&, int, const WorkspaceShape&, const int*) {
    throw Error(Status::unsupported,
                "device: expected cpu, found cuda: this build has none (ESPALIER_CUDA=OFF)");
}

}  // namespace espalier
