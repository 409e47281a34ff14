// A GPU that is lost to the process while models are on it: every call is a status with a message, and what
// runs on the CPU goes on. Provoked by a kernel that writes where there is no memory, after which the driver
// answers nothing else in this process: a program of its own.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "base/error.h"
#include "kernels/cuda/rows.h"
#include "runtime/context.h"
#include "tests/cuda/gpu.h"
#include "tests/tiny_model.h"

namespace {

using namespace espalier;
using namespace espalier::test;

template <class Call>
Status status_of(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find("cuda") != std::string::npos);
        MESSAGE(std::string(error.what()));
        return error.status();
    }
    return Status::ok;
}

}  // namespace

TEST_CASE("a lost device is a status, and the process goes on") {
    if (!has_gpu()) return;
    ModelSpec spec = tiny_spec();
    for (BlockSpec& block : spec.blocks) {
        block.heads = block.kv_heads = 1;
        block.head_dimension = spec.hidden;
    }
    const AlignedBytes bytes = model_to_memory(spec, random_tensors(spec, only(TensorType::f32), 3));
    const auto model = Model::from_memory(bytes.span(), {});
    ContextOptions on;
    on.max_tokens = 8;
    Context cpu(*model, on);
    on.device = "cuda";
    const std::vector<int32_t> ids{1, 2, 3};
    const std::vector<uint32_t> offsets{0, 3};
    const Batch batch{ids, {}, offsets};
    const auto before = cpu.encode(batch);
    const std::vector<float> expected(before.begin(), before.end());
    {
        Context gpu(*model, on), graph(*model, on);
        const auto found = gpu.encode(batch);
        for (size_t i = 0; i < expected.size(); ++i)
            CHECK(std::fabs(found[i] - expected[i]) < 1e-3F);
        for (int i = 0; i < 3; ++i)
            graph.encode(batch);  // recorded, and launched
        float* nowhere = reinterpret_cast<float*>(uintptr_t{4096});
        cuda::add(nowhere, nowhere, 1024, nullptr);
        CHECK(cudaDeviceSynchronize() != cudaSuccess);
        for (int i = 0; i < 2; ++i) {
            CHECK(status_of([&] { gpu.encode(batch); }) == Status::internal);
            CHECK(status_of([&] { graph.encode(batch); }) == Status::internal);
        }
        CHECK(status_of([&] { Context another(*model, on); }) == Status::internal);
    }
    // The contexts are gone; the CPU's answers are what they were.
    CHECK(status_of([&] { Context another(*model, on); }) == Status::internal);
    const auto after = cpu.encode(batch);
    CHECK(std::equal(after.begin(), after.end(), expected.begin(), expected.end()));
}
