// One tree of neurons (UltraFastBERT) against the best dense layer of cuBLASLt on a GPU:
//   cuda_layer_bench HIDDEN DEPTH PRECISION BATCH...     precision f32 or bf16
// Inputs and weights are random; a call reads one of four inputs in turn. Dense: HIDDEN -> 2^(DEPTH+1) ->
// HIDDEN with GELU in the first product's epilogue, no bias, the fastest of the algorithms that cuBLASLt
// proposes; in float32 without TF32, and with. The bound: x, y and the rows that the tokens touched, each
// moved once, at the speed of a copy on the device.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/float16.h"
#include "bench/cuda/timing.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/forest.h"
#include "kernels/cuda/rows.h"

namespace {

using namespace espalier;
using namespace espalier::cuda;

constexpr int inputs = 4, proposals = 32;

// Random numbers of a normal distribution's size, in chunks repeated: 2^22 different ones.
class Numbers {
   public:
    explicit Numbers(uint64_t seed) : values_(size_t{1} << 22) {
        std::mt19937_64 random(seed);
        std::normal_distribution<float> normal;
        for (float& value : values_)
            value = normal(random);
    }
    Buffer on_device(size_t count, TensorType type, float scale) {
        std::vector<float> wide(count);
        for (size_t i = 0; i < count; ++i)
            wide[i] = values_[(next_ + i * 7 + i / values_.size() * 3) % values_.size()] * scale;
        next_ += 977;
        Buffer buffer(count * bytes_of(type));
        if (type == TensorType::f32) {
            check(cudaMemcpy(buffer.as<void>(), wide.data(), buffer.bytes(), cudaMemcpyHostToDevice),
                  "copying");
            return buffer;
        }
        std::vector<uint16_t> narrow(count);
        for (size_t i = 0; i < count; ++i)
            narrow[i] = bfloat_from_float(wide[i]);
        check(cudaMemcpy(buffer.as<void>(), narrow.data(), buffer.bytes(), cudaMemcpyHostToDevice),
              "copying");
        return buffer;
    }

   private:
    std::vector<float> values_;
    size_t next_ = 0;
};

std::vector<float> to_host(const void* from, size_t count, TensorType type) {
    std::vector<float> wide(count);
    if (type == TensorType::f32) {
        check(cudaMemcpy(wide.data(), from, count * sizeof(float), cudaMemcpyDeviceToHost), "copying");
        return wide;
    }
    std::vector<uint16_t> narrow(count);
    check(cudaMemcpy(narrow.data(), from, count * sizeof(uint16_t), cudaMemcpyDeviceToHost), "copying");
    for (size_t i = 0; i < count; ++i)
        wide[i] = float_from_bfloat(narrow[i]);
    return wide;
}

// Bytes a second, read and written, of y += x over 2 GiB.
double memory_speed(cudaStream_t stream) {
    const size_t count = size_t{1} << 28;
    const Buffer from(count * sizeof(float)), to(count * sizeof(float));
    check(cudaMemset(from.as<void>(), 1, from.bytes()), "filling");
    check(cudaMemset(to.as<void>(), 1, to.bytes()), "filling");
    const double us =
        median_us(stream, 5, [&](int) { add(from.as<float>(), to.as<float>(), count, stream); });
    return 3.0 * static_cast<double>(from.bytes()) / (us * 1e-6);
}

class Layer {
   public:
    Layer(size_t hidden, size_t depth, TensorType type, size_t most)
        : type_(type), numbers_(hidden * 31 + depth), device_(device(0)) {
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
        Trees& t = forest_.trees;
        t.hidden = hidden;
        t.trees = 1;
        t.levels = depth + 1;
        t.neurons = true;
        t.activation = Activation::gelu_tanh;  // what the dense layer's epilogue computes
        t.rows = type;
        // One row more than the tree has, so that the dense layer's width is even.
        width_ = t.nodes_per_tree() + 1;
        const float scale = 1.0F / std::sqrt(static_cast<float>(hidden));
        in_ = numbers_.on_device(width_ * hidden, type, scale);
        out_ = numbers_.on_device(width_ * hidden, type, scale);
        t.nodes = in_.as<void>();
        forest_.out = out_.as<void>();
        for (int i = 0; i < inputs; ++i) {
            x_.push_back(numbers_.on_device(most * hidden, type, 1));
            y_.emplace_back(most * hidden * sizeof(float));
        }
        activations_ = Buffer(activation_floats(t, most) * sizeof(float));
        counts_ = Buffer(count_words(t, most) * sizeof(uint32_t));
        order_ = Buffer(order_words(t, most) * sizeof(uint32_t));
        leaf_ = Buffer(most * sizeof(uint32_t));
        margin_ = Buffer(most * sizeof(float));
    }
    ~Layer() { cudaStreamDestroy(stream_); }
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

    cudaStream_t stream() const { return stream_; }
    const Device& card() const { return device_; }

    double tree_us(size_t batch, int launches) {
        return median_us(stream_, launches, [&](int i) { cuda::run(forest_, call(batch, i % inputs)); });
    }

    double dense_us(size_t batch, int launches, bool tf32) {
        const size_t hidden = forest_.trees.hidden;
        DenseRunner dense;
        const DenseShape up{hidden, width_, type_, type_, Activation::gelu_tanh, tf32},
            down{width_, hidden, type_, type_, Activation::none, tf32};
        const Buffer inner(batch * width_ * bytes_of(type_));
        const auto first = [&](int i) -> DenseCall {
            return {in_.as<void>(), nullptr, x_[i].as<void>(), inner.as<void>(), batch, stream_};
        };
        // The output matrix as a dense layer stores it: [hidden, width]; other numbers do as well.
        const auto second = [&](int i) -> DenseCall {
            return {out_.as<void>(), nullptr, inner.as<void>(), y_[i].as<void>(), batch, stream_};
        };
        dense.tune(up, first(0), proposals);
        dense.tune(down, second(0), proposals);
        return median_us(stream_, launches, [&](int i) {
            dense.run(up, first(i % inputs));
            dense.run(down, second(i % inputs));
        });
    }

    struct Touched {
        size_t leaves, nodes;
        double error;
    };
    // The last call of `batch` tokens again: what it touched, and its largest relative error of a few tokens
    // against double precision.
    Touched look(size_t batch) {
        cuda::run(forest_, call(batch, 0));
        check(cudaStreamSynchronize(stream_), "running");
        const Trees& t = forest_.trees;
        std::vector<uint32_t> leaf(batch);
        check(cudaMemcpy(leaf.data(), leaf_.as<void>(), batch * sizeof(uint32_t), cudaMemcpyDeviceToHost),
              "copying");
        std::set<size_t> nodes, leaves;
        for (const uint32_t l : leaf) {
            leaves.insert(l);
            for (size_t level = 0; level < t.levels; ++level)
                nodes.insert(((l + t.leaves()) >> (t.levels - 1 - level)) - 1);
        }
        double error = 0;
        for (const size_t token : {size_t{0}, batch / 2, batch - 1})
            error = std::max(error, error_of(token, leaf[token]));
        return {leaves.size(), nodes.size(), error};
    }

    double bytes(size_t batch, size_t nodes) const {
        const size_t hidden = forest_.trees.hidden;
        return static_cast<double>(batch * hidden * 2 * bytes_of(type_) +
                                   nodes * hidden * 2 * bytes_of(type_));
    }

   private:
    ForestCall call(size_t batch, int input) const {
        ForestCall c;
        c.x = x_[input].as<void>();
        c.tokens = batch;
        c.y = y_[input].as<void>();
        c.narrow = type_ == TensorType::bf16;  // as the dense layer's
        c.leaf = leaf_.as<uint32_t>();
        c.margin = margin_.as<float>();
        c.scratch = {activations_.as<float>(), counts_.as<uint32_t>(), order_.as<uint32_t>(), batch};
        c.device = &device_;
        c.stream = stream_;
        return c;
    }

    double error_of(size_t token, uint32_t leaf) {
        const Trees& t = forest_.trees;
        const size_t hidden = t.hidden, row_bytes = hidden * bytes_of(type_);
        const auto row = [&](const Buffer& of, size_t index) {
            return to_host(of.as<std::byte>() + index * row_bytes, hidden, type_);
        };
        const auto x = row(x_[0], token);
        std::vector<double> y(hidden);
        size_t node = 0, last = 0;
        for (size_t level = 0; level < t.levels; ++level) {
            const auto in = row(in_, node), out = row(out_, node);
            double z = 0;
            for (size_t i = 0; i < hidden; ++i)
                z += double{x[i]} * in[i];
            const double a = 0.5 * z * (1 + std::tanh(0.7978845608 * (z + 0.044715 * z * z * z)));
            for (size_t i = 0; i < hidden; ++i)
                y[i] += a * out[i];
            last = node;
            node = 2 * node + (z > 0 ? 2 : 1);
        }
        if (last != leaf + t.leaves() - 1) return INFINITY;
        const auto found = to_host(y_[0].as<std::byte>() + token * row_bytes, hidden, type_);
        double difference = 0, size = 0;
        for (size_t i = 0; i < hidden; ++i) {
            difference += (found[i] - y[i]) * (found[i] - y[i]);
            size += y[i] * y[i];
        }
        return std::sqrt(difference / size);
    }

    TensorType type_;
    Numbers numbers_;
    Device device_;
    cudaStream_t stream_ = nullptr;
    NeuronForest forest_;
    size_t width_ = 0;
    Buffer in_, out_, activations_, counts_, order_, leaf_, margin_;
    std::vector<Buffer> x_, y_;
};

int bench(size_t hidden, size_t depth, TensorType type, const std::vector<size_t>& batches) {
    Layer layer(hidden, depth, type, *std::max_element(batches.begin(), batches.end()));
    const double speed = memory_speed(layer.stream());
    std::printf("%s, %zu wide, %zu levels, %s; y += x moves %.2f TB/s\n", layer.card().name, hidden,
                depth + 1, name_of(type), speed * 1e-12);
    std::printf("%8s %12s %12s %8s %12s %8s %10s %8s %8s %10s\n", "batch", "tree us", "dense us", "ratio",
                "dense TF32", "ratio", "bound us", "of it", "leaves", "error");
    for (const size_t batch : batches) {
        const int launches = batch * hidden > (size_t{1} << 24) ? 11 : 31;
        const double tree = layer.tree_us(batch, launches), dense = layer.dense_us(batch, launches, false);
        const double tf32 = type == TensorType::f32 ? layer.dense_us(batch, launches, true) : 0;
        const auto touched = layer.look(batch);
        const double bound = layer.bytes(batch, touched.nodes) / speed * 1e6;
        std::printf("%8zu %12.2f %12.2f %7.1fx %12.2f %7.1fx %10.2f %7.0f%% %8zu %10.1e\n", batch, tree,
                    dense, dense / tree, tf32, tf32 / tree, bound, 100 * bound / tree, touched.leaves,
                    touched.error);
        std::fflush(stdout);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "usage: cuda_layer_bench HIDDEN DEPTH f32|bf16 BATCH...\n");
        return 2;
    }
    std::vector<size_t> batches;
    for (int i = 4; i < argc; ++i)
        batches.push_back(std::strtoull(argv[i], nullptr, 10));
    try {
        return bench(std::strtoull(argv[1], nullptr, 10), std::strtoull(argv[2], nullptr, 10),
                     std::strcmp(argv[3], "f32") == 0 ? TensorType::f32 : TensorType::bf16, batches);
    } catch (const Error& error) {
        std::fprintf(stderr, "cuda_layer_bench: %s\n", error.what());
        return 1;
    }
}
