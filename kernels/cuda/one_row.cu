#include "kernels/cuda/one_row.h"

#include "kernels/cuda/early.cuh"
#include "kernels/cuda/numbers.cuh"

namespace espalier::cuda {
namespace {

constexpr unsigned row_threads = 256, row_warps = row_threads / 32;
// Loads of a lane that are under way together: half as many, and fewer registers, where there are outputs
// enough for all the warps that a processor then holds.
constexpr uint32_t few_ahead = 4, many_ahead = 8;
constexpr unsigned crowded_blocks = 6, crowd = 3072;  // of a processor; outputs

struct Row {
    const void *weight, *bias, *x;
    void* y;
    uint32_t inputs, outputs;  // outputs: of y
    Activation activation;
};

// A warp an output; gated: two rows of weights for one output. Weights are read once and not kept; the first
// of them while what x comes from may still be at work.
template <class T, class Out, bool gated, uint32_t ahead>
__global__ void __launch_bounds__(row_threads, ahead == few_ahead ? crowded_blocks : 1)
    multiply_rows(const Row r) {
    constexpr uint32_t values = vector_values<T>, rows = gated ? 2 : 1, loads = ahead / rows,
                       step = 32 * values;
    let_next_begin();
    const uint32_t output = blockIdx.x * row_warps + threadIdx.x / 32, lane = threadIdx.x % 32;
    const bool works = output < r.outputs;
    const T* const x = static_cast<const T*>(r.x);
    const T* const weight = static_cast<const T*>(r.weight) + size_t{output} * r.inputs;
    uint4 w[rows][loads];
    const auto load = [&](uint32_t begin) {
#pragma unroll
        for (uint32_t i = 0; i < loads; ++i) {
            const uint32_t at = begin + i * step;
#pragma unroll
            for (uint32_t g = 0; g < rows; ++g) {
                const T* from = weight + size_t{g} * r.outputs * r.inputs + at;
                w[g][i] = works && at < r.inputs ? __ldcs(reinterpret_cast<const uint4*>(from))
                                                 : make_uint4(0, 0, 0, 0);
            }
        }
    };
    load(lane * values);
    wait_for_previous();
    if (!works) return;
    float sum[rows] = {};
    for (uint32_t begin = lane * values; begin < r.inputs; begin += loads * step) {
        if (begin >= loads * step) load(begin);
#pragma unroll
        for (uint32_t i = 0; i < loads; ++i) {
            if (begin + i * step >= r.inputs) continue;
            const Vector<T> a = load_vector(x + begin + i * step);
#pragma unroll
            for (uint32_t g = 0; g < rows; ++g) {
                const Vector<T> b = widened(w[g][i], x);
#pragma unroll
                for (uint32_t v = 0; v < values; ++v)
                    sum[g] += a.values[v] * b.values[v];
            }
        }
    }
#pragma unroll
    for (uint32_t g = 0; g < rows; ++g)
        sum[g] = warp_sum(sum[g]);
    if (lane != 0) return;
    const Out* bias = static_cast<const Out*>(r.bias);
    if (bias != nullptr) {
#pragma unroll
        for (uint32_t g = 0; g < rows; ++g)
            sum[g] += cuda::widened(bias[output + g * r.outputs]);
    }
    float y = activated(r.activation, sum[0]);
    if constexpr (gated) y *= sum[1];
    static_cast<Out*>(r.y)[output] = narrowed<Out>(y);
}

template <class T, class Out>
void launch(const Row& row, const OneRow& how, cudaStream_t stream) {
    const auto run = [&](auto* kernel) {
        launch_early(how.early, kernel, blocks_for(row.outputs, row_warps), row_threads, stream, row);
    };
    if (row.outputs > crowd) {
        run(how.gated ? multiply_rows<T, Out, true, few_ahead> : multiply_rows<T, Out, false, few_ahead>);
    } else {
        run(how.gated ? multiply_rows<T, Out, true, many_ahead> : multiply_rows<T, Out, false, many_ahead>);
    }
}

constexpr unsigned gate_threads = 256;

// Four values a thread.
template <class T>
__global__ void __launch_bounds__(gate_threads)
    multiply_gate_rows(const T* both, T* y, size_t vectors, uint32_t width, Activation activation) {
    const size_t i = size_t{blockIdx.x} * gate_threads + threadIdx.x;
    if (i >= vectors) return;
    const size_t row = i / (width / 4), column = i % (width / 4) * 4;
    const T* from = both + row * 2 * width + column;
    const float4 gate = load_four_values(from), other = load_four_values(from + width);
    store_four_values(
        y + row * width + column,
        make_float4(activated(activation, gate.x) * other.x, activated(activation, gate.y) * other.y,
                    activated(activation, gate.z) * other.z, activated(activation, gate.w) * other.w));
}

}  // namespace

void multiply_row(const DenseShape& shape, const DenseCall& call, const OneRow& how) {
    const Row row{call.weight,
                  call.bias,
                  call.x,
                  call.y,
                  static_cast<uint32_t>(shape.inputs),
                  static_cast<uint32_t>(how.gated ? shape.outputs / 2 : shape.outputs),
                  shape.activation};
    const bool narrow = shape.output == TensorType::bf16;
    if (shape.input == TensorType::f32) {
        launch<float, float>(row, how, call.stream);
    } else if (narrow) {
        launch<bf16, bf16>(row, how, call.stream);
    } else {
        launch<bf16, float>(row, how, call.stream);
    }
}

void multiply_gates(const Gates& g, cudaStream_t stream) {
    const size_t vectors = g.rows * g.width / 4;
    const unsigned blocks = blocks_for(vectors, gate_threads);
    const auto width = static_cast<uint32_t>(g.width);
    if (g.type == TensorType::f32) {
        multiply_gate_rows<<<blocks, gate_threads, 0, stream>>>(
            static_cast<const float*>(g.both), static_cast<float*>(g.y), vectors, width, g.activation);
    } else {
        multiply_gate_rows<<<blocks, gate_threads, 0, stream>>>(
            static_cast<const bf16*>(g.both), static_cast<bf16*>(g.y), vectors, width, g.activation);
    }
    check_launch("multiply_gates");
}

}  // namespace espalier::cuda
