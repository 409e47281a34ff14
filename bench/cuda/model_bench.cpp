// Encoders with random weights on a GPU, timed on the device:
//   cuda_model_bench minilm|bert-base FFN f32|bf16|int8 BATCH LENGTH
// Ids in, last hidden states on the device; the launches of all blocks are one graph.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "apps/ffn_spec.h"
#include "apps/quantile.h"
#include "apps/synthetic.h"
#include "base/error.h"
#include "bench/cuda/timing.h"
#include "runtime/cuda/cuda_encoder.h"

namespace {

using namespace espalier;

double graph_us(CudaEncoder& encoder, const Batch& batch) {
    for (int i = 0; i < 3; ++i)
        encoder.run(batch, {});  // from the second on a graph
    cudaEvent_t start = nullptr, stop = nullptr;
    cuda::check(cudaEventCreate(&start), "an event");
    cuda::check(cudaEventCreate(&stop), "an event");
    std::vector<double> times;
    for (int i = 0; i < 203; ++i) {
        float ms = 0;
        cuda::check(cudaEventRecord(start, encoder.stream()), "timing");
        encoder.run_again(batch);
        cuda::check(cudaEventRecord(stop, encoder.stream()), "timing");
        cuda::check(cudaEventSynchronize(stop), "timing");
        cuda::check(cudaEventElapsedTime(&ms, start, stop), "timing");
        if (i >= 3) times.push_back(1000.0 * ms);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    return quantile(times, 0.5);
}

int bench(const char* shape, const char* ffn, const char* precision, uint32_t sequences, uint32_t length) {
    ModelOptions options;
    options.precision = precision;
    options.backend = "native";
    const Precision stored = options.precision == "f32"    ? Precision::f32
                             : options.precision == "int8" ? Precision::int8
                                                           : Precision::bf16;
    const SyntheticModel synthetic = make_synthetic(shape_named(shape), parse_ffn(ffn), stored, 1, options);
    CudaEncoder encoder(*synthetic.model, 0, {size_t{sequences} * length, sequences, 1}, nullptr);
    std::vector<int32_t> ids(size_t{sequences} * length);
    std::vector<uint32_t> offsets{0};
    uint64_t state = 3;
    for (uint32_t s = 0; s < sequences; ++s) {
        random_ids(synthetic.model->spec(), state, std::span(ids).subspan(size_t{s} * length, length));
        offsets.push_back((s + 1) * length);
    }
    const double us = graph_us(encoder, {ids, {}, offsets});
    std::printf("%s, %s %s %s, batch %u x %u tokens: %.1f us\n", encoder.name(), shape, ffn, precision,
                sequences, length, us);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: cuda_model_bench minilm|bert-base FFN f32|bf16|int8 BATCH LENGTH\n");
        return 2;
    }
    try {
        return bench(argv[1], argv[2], argv[3], static_cast<uint32_t>(std::atoi(argv[4])),
                     static_cast<uint32_t>(std::atoi(argv[5])));
    } catch (const Error& error) {
        std::fprintf(stderr, "cuda_model_bench: %s\n", error.what());
        return 1;
    }
}
