// Our dense kernels against oneDNN's, one thread, in turns within one run:  dense_compare [ROUNDS]
// Prints a Markdown table: BERT-base's layers at 32 and 128 rows. Both sides go through the same four layers
// of different random weights in turn, and through different inputs, so that no call finds what the last one
// left. 8-bit: ours with a scale a row of x, as models run; oneDNN with one scale for all rows, the most it
// has.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/bench_support.h"
#include "kernels/dense/dense.h"

namespace espalier::bench {
namespace {

constexpr size_t layers = 4, inputs = 8;

struct Case {
    size_t inputs, outputs, rows;
    TensorType type;
    double gigaflop() const { return 2e-9 * static_cast<double>(inputs * outputs * rows); }
};

// One backend's layers of one shape.
class Side {
   public:
    Side(const DenseBackend& backend, const DenseShape& shape, size_t rows, const std::vector<std::byte>& x)
        : runner_(backend.make_runner(1)),
          rows_(rows),
          x_(x),
          x_bytes_(x.size() / bench::inputs),
          scales_(padded_rows(rows), 0.02F),
          y_(padded_rows(rows) * shape.outputs) {
        for (size_t i = 0; i < layers; ++i) {
            const Numbers weight(shape.inputs * shape.outputs, weight_scale(shape.inputs), i + 1),
                bias(shape.outputs);
            layers_.push_back(
                backend.prepare(shape, weight.data(), bias.data(), std::pmr::get_default_resource()));
        }
        run();
    }
    void run() {
        const DenseLayer& layer = *layers_[at_ % layers];
        const std::byte* x = x_.data() + at_ % bench::inputs * x_bytes_;
        runner_->run(layer, x, layer.shape().row_scales ? scales_.data() : nullptr, y_.data(), rows_);
        ++at_;
    }
    // Seconds a call.
    double time(size_t calls) {
        const auto start = std::chrono::steady_clock::now();
        for (size_t i = 0; i < calls; ++i)
            run();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
               static_cast<double>(calls);
    }
    const char* implementation() { return runner_->implementation(*layers_[0], rows_); }

   private:
    std::unique_ptr<DenseRunner> runner_;
    size_t rows_;
    const std::vector<std::byte>& x_;
    size_t x_bytes_, at_ = 0;
    std::vector<std::unique_ptr<DenseLayer>> layers_;
    std::vector<float> scales_, y_;
};

std::vector<std::byte> random_inputs(const Case& c) {
    const size_t values = inputs * padded_rows(c.rows) * c.inputs;
    const Numbers numbers(values, 1, 99);
    std::vector<std::byte> bytes(values * bytes_of(c.type) + 256);
    bytes.resize(values * bytes_of(c.type));
    for (size_t i = 0; i < values; ++i) {
        if (c.type == TensorType::f32) {
            std::memcpy(bytes.data() + i * sizeof(float), numbers.data() + i, sizeof(float));
        } else {
            bytes[i] = static_cast<std::byte>(
                static_cast<int8_t>(std::clamp(numbers.data()[i] * 40, -127.0F, 127.0F)));
        }
    }
    return bytes;
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2),
                     values.end());
    return values[values.size() / 2];
}

void compare(const Case& c, const DenseBackend& native, const DenseBackend& onednn, size_t rounds) {
    DenseShape shape{c.inputs, c.outputs, Activation::none, true};
    shape.input = c.type;
    shape.row_scales = c.type == TensorType::s8;
    DenseShape theirs_shape = shape;
    theirs_shape.row_scales = false;
    theirs_shape.input_quantisation.scale = 0.02F;
    const auto x = random_inputs(c);
    Side ours(native, shape, c.rows, x), theirs(onednn, theirs_shape, c.rows, x);
    const size_t calls = std::max<size_t>(layers, static_cast<size_t>(0.01 / theirs.time(layers)));
    std::vector<double> our_times, their_times, ratios;
    for (size_t r = 0; r < rounds; ++r) {
        const bool first = r % 2 == 0;
        const double a = first ? ours.time(calls) : theirs.time(calls),
                     b = first ? theirs.time(calls) : ours.time(calls);
        our_times.push_back(first ? a : b);
        their_times.push_back(first ? b : a);
        ratios.push_back(their_times.back() / our_times.back());
    }
    std::printf("| %s | %zu x %zu | %zu | %.0f (%s) | %.0f (%s) | %.2f |\n",
                c.type == TensorType::f32 ? "f32" : "8-bit", c.inputs, c.outputs, c.rows,
                c.gigaflop() / median(our_times), ours.implementation(), c.gigaflop() / median(their_times),
                theirs.implementation(), median(ratios));
    std::fflush(stdout);
}

}  // namespace
}  // namespace espalier::bench

int main(int argc, char** argv) {
    using namespace espalier;
    const long rounds = argc > 1 ? std::atol(argv[1]) : 21;
    if (argc > 2 || rounds < 1) {
        std::fprintf(stderr, "usage: dense_compare [ROUNDS]\n");
        return 2;
    }
    try {
        const auto native = make_native_backend(best_isa()), onednn = make_onednn_backend(best_isa());
        std::printf(
            "| type | inputs x outputs | rows | ours, GFLOP/s | oneDNN, GFLOP/s | our speed to oneDNN's |\n"
            "|---|---|---|---|---|---|\n");
        for (const TensorType type : {TensorType::f32, TensorType::s8}) {
            for (const auto& [in, out] : {std::pair<size_t, size_t>{768, 768}, {768, 3072}, {3072, 768}}) {
                for (const size_t rows : {32, 128})
                    bench::compare({in, out, rows, type}, *native, *onednn, static_cast<size_t>(rounds));
            }
        }
    } catch (const Error& error) {
        std::fprintf(stderr, "dense_compare: %s\n", error.what());
        return 1;
    }
    return 0;
}
