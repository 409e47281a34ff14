#include "apps/layer_dense.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace espalier {
namespace {

// Matrices of one layer, numbered from its own: weights up and down, biases.
enum : uint64_t { up_matrix, down_matrix, up_biases, down_biases };

double gelu(double z) {
    return 0.5 * z * (1 + std::erf(z * 0.70710678118654752));
}

// Eight sums, so that the compiler can vectorise.
double dot(const float* a, const float* b, size_t count) {
    double sums[8] = {};
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (size_t k = 0; k < 8; ++k)
            sums[k] += static_cast<double>(a[i + k]) * b[i + k];
    }
    double sum = 0;
    for (; i < count; ++i)
        sum += static_cast<double>(a[i]) * b[i];
    for (const double s : sums)
        sum += s;
    return sum;
}

float inverse_root(size_t n) {
    return 1 / std::sqrt(static_cast<float>(n));
}

}  // namespace

DenseFfn::DenseFfn(size_t hidden, size_t width, TensorType precision, const DenseBackend& backend,
                   int threads, const RandomRows& random, uint64_t matrix, std::pmr::memory_resource* memory)
    : hidden_(hidden),
      width_(width),
      precision_(precision),
      random_(random),
      matrix_(matrix),
      memory_(memory) {
    DenseShape up, down;
    up.inputs = down.outputs = hidden;
    up.outputs = down.inputs = width;
    up.activation = Activation::gelu_erf;
    up.bias = down.bias = true;
    up.input = up.output = down.input = precision;
    if (precision == TensorType::s8) {
        up.input_quantisation.scale = static_token_scale;
        up.output = down.input = TensorType::u8;
        up.output_quantisation = down.input_quantisation = calibrate();
    }
    const HugeBlock weights(hidden * width * sizeof(float), memory);
    auto* weight = weights.as<float>();
    std::vector<float> biases(std::max(hidden, width));
    const auto fill = [&](const DenseShape& shape, uint64_t which, uint64_t which_biases) {
        for (size_t o = 0; o < shape.outputs; ++o)
            random.row(matrix + which, o, inverse_root(shape.inputs), weight + o * shape.inputs,
                       shape.inputs);
        for (size_t o = 0; o < shape.outputs; ++o)
            biases[o] = bias(which_biases, o);
    };
    fill(up, up_matrix, up_biases);
    up_ = backend.prepare(up, weight, biases.data(), memory);
    fill(down, down_matrix, down_biases);
    down_ = backend.prepare(down, weight, biases.data(), memory);
    runner_ = backend.make_runner(threads, true);
}

size_t DenseFfn::peak_bytes(size_t hidden, size_t width, TensorType precision, size_t rows) {
    // Weights in float32 and once more while they are packed, both packed layers, the activations.
    return hidden * width * (4 + 3 * bytes_of(precision)) + rows * width * bytes_of(precision);
}

float DenseFfn::bias(uint64_t which, size_t i) const {
    float value = 0;
    random_.row(matrix_ + which, i, 0.1F, &value, 1);
    return value;
}

// GELU gives nothing below -0.17: an unsigned type with a zero spends its 256 steps from there to the largest
// value that random tokens show in up to 4,096 neurons. Larger ones saturate.
Quantisation DenseFfn::calibrate() const {
    constexpr double lowest = -0.17;
    constexpr size_t most = 4096, samples = 65536;
    const size_t tokens = std::clamp<size_t>(samples / width_, 16, 1024);
    uint64_t state = 99;
    std::vector<float> x(tokens * hidden_), row(hidden_);
    for (float& value : x)
        value = random_normal(state);
    double largest = 1;
    for (size_t n = 0; n < std::min(width_, most); ++n) {
        random_.row(matrix_ + up_matrix, n, inverse_root(hidden_), row.data(), hidden_);
        for (size_t t = 0; t < tokens; ++t)
            largest = std::max(largest, gelu(dot(row.data(), x.data() + t * hidden_, hidden_) +
                                             static_cast<double>(bias(up_biases, n))));
    }
    Quantisation q;
    q.scale = static_cast<float>((largest - lowest) / 255);
    q.zero = static_cast<float>(-lowest) / q.scale;
    return q;
}

void DenseFfn::run(const Tokens& tokens, float* y) {
    run_chunks(tokens, y, chunk_);
}

void DenseFfn::run_chunks(const Tokens& tokens, float* y, size_t chunk) {
    for (size_t start = 0; start < tokens.count; start += chunk) {
        const size_t rows = std::min(chunk, tokens.count - start);
        runner_->run(*up_, tokens.x_static + start * tokens.row_bytes, inner_.data(), rows);
        runner_->run(*down_, inner_.data(), y + start * hidden_, rows);
    }
}

void DenseFfn::plan(const Tokens& tokens, float* y) {
    using Clock = std::chrono::steady_clock;
    constexpr size_t largest_inner = size_t{2} << 30;
    const size_t row_bytes = width_ * bytes_of(precision_);
    chunk_ = tokens.count;
    if (tokens.count * row_bytes > largest_inner) chunk_ = std::max<size_t>(1, largest_inner / row_bytes);
    // Padded for backends that compute whole blocks of rows.
    inner_ = HugeBlock(padded_rows(chunk_) * row_bytes, memory_);
    std::vector<size_t> candidates;
    for (const size_t chunk : {256, 512, 1024, 2048}) {
        if (chunk < chunk_) candidates.push_back(chunk);
    }
    if (candidates.empty()) return;
    candidates.push_back(chunk_);
    double best = INFINITY;
    for (const size_t chunk : candidates) {
        const Tokens part = tokens.slice(0, chunk);
        runner_->implementation(*up_, chunk);  // primitives are made here, untimed
        runner_->implementation(*down_, chunk);
        for (int repeat = 0; repeat < (chunk <= 1024 ? 3 : 1); ++repeat) {
            const auto start = Clock::now();
            run_chunks(part, y, chunk);
            const double time =
                std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(chunk);
            if (time < best) {
                best = time;
                chunk_ = chunk;
            }
        }
    }
}

void DenseFfn::reference(const float* x, double* y) const {
    std::vector<float> row(std::max(hidden_, width_)), inner(width_);
    for (size_t n = 0; n < width_; ++n) {
        random_.row(matrix_ + up_matrix, n, inverse_root(hidden_), row.data(), hidden_);
        inner[n] =
            static_cast<float>(gelu(dot(row.data(), x, hidden_) + static_cast<double>(bias(up_biases, n))));
    }
    for (size_t o = 0; o < hidden_; ++o) {
        random_.row(matrix_ + down_matrix, o, inverse_root(width_), row.data(), width_);
        y[o] = dot(row.data(), inner.data(), width_) + static_cast<double>(bias(down_biases, o));
    }
}

}  // namespace espalier
