#include "runtime/cuda/cuda_model.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/byte_products.h"
#include "kernels/cuda/cached_attention.h"
#include "kernels/quantize/quantize.h"
#include "kernels/quantize/rotate.h"
#include "model_format/schema.h"
#include "runtime/tensor_values.h"

namespace espalier {
namespace {

constexpr size_t widest_norm = 4096, deepest_tree = 20;

// One line that says what does not run here.
void refuse_what_does_not_run(const Model& model, const cuda::Device& device) {
    const ModelSpec& spec = model.spec();
    const auto refuse = [&](const char* what) {
        throw Error(Status::unsupported, "%s: %s do not run on a GPU in this version", model.file().source(),
                    what);
    };
    const bool decodes = spec.family == Family::decoder, is_8bit = model.precision() == TensorType::s8;
    if (decodes && is_8bit) refuse("decoders in 8 bits");
    if (model.precision() != TensorType::f32 && !device.has_bf16_products())
        throw Error(Status::unsupported, "cuda: %s: %s needs compute capability 8.0, found %d.%d (f32 runs)",
                    device.name, name_of(model.precision()), device.major, device.minor);
    if (spec.hidden % cuda::hidden_multiple != 0) refuse("hidden sizes that are no multiple of 8");
    if (spec.hidden > widest_norm) refuse("hidden sizes above 4096");
    for (const BlockSpec& block : spec.blocks) {
        const size_t widest = decodes ? cuda::widest_cached_head : cuda::widest_head;
        if (block.has(block_flag::attention) &&
            (block.head_dimension > widest || block.head_dimension % cuda::head_multiple != 0))
            refuse(decodes ? "attention heads of a decoder that are wider than 128 or no multiple of 8"
                           : "attention heads that are wider than 64 or no multiple of 8");
        for (const PartSpec& part : spec.parts_of(block)) {
            if (part.has(part_flag::gated) && part.kind == PartKind::leaf_forest) refuse("gated leaves");
            if (part.has(part_flag::gated) && is_8bit) refuse("gated parts in 8 bits");
            if (is_8bit && std::max(part.width, part.leaf_width) > cuda::widest_rounded_row)
                refuse("parts wider than 12288 in 8 bits");
            if (part.depth > deepest_tree) refuse("trees of a depth above 20");
        }
    }
    for (const PreparedBlock& block : model.prepared().blocks) {
        for (const PreparedPart& part : block.parts) {
            if (model.precision() == TensorType::s8 && part.spec->kind == PartKind::leaf_forest &&
                part.leaf_forest.leaf_width + part.leaf_forest.shared_width > cuda::widest_rounded_row)
                refuse("leaves that with a dense part beside them are wider than 12288 in 8 bits");
        }
    }
}

}  // namespace

// Reads the file's tensors in order and puts them on the device.
class CudaUpload {
   public:
    CudaUpload(const Model& model, CudaModel& target)
        : model_(model),
          file_(model.file()),
          spec_(model.spec()),
          target_(target),
          values_(file_, model.kernels(), model.memory()) {
        if (target.device_.shares_memory) map_file();
    }

    void run() {
        CudaModel& t = target_;
        t.embeddings_.hidden = spec_.hidden;
        t.embeddings_.words = floats("embeddings.word");
        if (spec_.positions == Positions::learned) t.embeddings_.positions = floats("embeddings.position");
        if (spec_.token_types > 0) t.embeddings_.types = floats("embeddings.type");
        if (spec_.has(model_flag::embedding_norm)) t.embedding_norm_ = norm("embeddings.norm");
        if (spec_.has(model_flag::final_norm)) t.final_norm_ = norm("final_norm");
        for (size_t b = 0; b < spec_.blocks.size(); ++b)
            t.blocks_.push_back(block(b));
        if (spec_.family == Family::decoder) t.output_ = output();
        values_.release();
        cuda::check(cudaDeviceSynchronize(), "copying weights");
    }

   private:
    // Where device and host share their memory, tensors that need no other form are read in the file's pages.
    void map_file() {
        auto* data = const_cast<std::byte*>(file_.bytes().data());
        if (cudaHostRegister(data, file_.bytes().size(), cudaHostRegisterMapped | cudaHostRegisterReadOnly) ==
            cudaSuccess) {
            target_.registered_.reset(data);
        } else {
            cudaGetLastError();  // then all is copied
        }
    }
    const void* mapped(const TensorView& tensor, TensorType type) const {
        if (target_.registered_ == nullptr || tensor.type != type || tensor.layout != TensorLayout::row_major)
            return nullptr;
        void* device = nullptr;
        auto* host = const_cast<std::byte*>(tensor.bytes.data());
        return cudaHostGetDevicePointer(&device, host, 0) == cudaSuccess ? device : nullptr;
    }

    const void* uploaded(const void* from, size_t bytes) {
        target_.buffers_.emplace_back(bytes);
        void* to = target_.buffers_.back().as<void>();
        cuda::check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying weights");
        return to;
    }

    // [rows, columns] of a tensor's numbers, in `type`, with zeros up to padded rows and columns.
    struct Matrix {
        size_t rows, columns, padded_rows, padded_columns;
        bool is_padded() const { return rows != padded_rows || columns != padded_columns; }
    };
    const void* matrix(const char* name, TensorType type, const Matrix& m, bool before_last = false) {
        const TensorView& tensor = file_.at(name);
        if (!m.is_padded()) {
            if (const void* in_place = mapped(tensor, type)) return in_place;
            if (tensor.type == type && tensor.layout == TensorLayout::row_major)
                return uploaded(tensor.bytes.data(), tensor.bytes.size());
        }
        const float* wide = values_.passing(name, false, before_last);
        if (m.is_padded()) {
            padded_.assign(m.padded_rows * m.padded_columns, 0.0F);
            for (size_t r = 0; r < m.rows; ++r)
                std::copy_n(wide + r * m.columns, m.columns, padded_.data() + r * m.padded_columns);
            wide = padded_.data();
        }
        return rounded(wide, m.padded_rows, m.padded_columns, type);
    }
    const void* rounded(const float* wide, size_t rows, size_t columns, TensorType type) {
        if (type == TensorType::f32) return uploaded(wide, rows * columns * sizeof(float));
        narrow_.resize(rows * columns);
        model_.kernels().round(type, false, wide, rows, columns, narrow_.data(), nullptr);
        return uploaded(narrow_.data(), narrow_.size() * sizeof(uint16_t));
    }
    const void* rows(const char* name, TensorType type, bool before_last = false) {
        const TensorView& tensor = file_.at(name);
        const size_t count = tensor.rows(), length = tensor.row_length();
        return matrix(name, type, {count, length, count, length}, before_last);
    }
    // [columns, rows] of a tensor that is [rows, columns].
    const void* transposed(const char* name, size_t rows, size_t columns, TensorType type) {
        const float* wide = values_.passing(name);
        padded_.resize(rows * columns);
        for (size_t r = 0; r < rows; ++r) {
            for (size_t c = 0; c < columns; ++c)
                padded_[c * rows + r] = wide[r * columns + c];
        }
        return rounded(padded_.data(), columns, rows, type);
    }
    const float* floats(const char* name) { return static_cast<const float*>(rows(name, TensorType::f32)); }
    const float* floats_if(bool present, const char* name) { return present ? floats(name) : nullptr; }

    cuda::Norm norm(const char* prefix) {
        cuda::Norm n;
        n.hidden = spec_.hidden;
        n.epsilon = spec_.norm_epsilon;
        n.rms = spec_.norm == espalier::Norm::rms_norm;
        n.weight = floats(tensor_name("%s.weight", prefix).text);
        n.bias = floats_if(!n.rms && !spec_.has(model_flag::norm_without_bias),
                           tensor_name("%s.bias", prefix).text);
        return n;
    }

    bool is_8bit() const { return model_.precision() == TensorType::s8; }
    // What lies between layers where they need not be float32.
    TensorType narrow() const { return is_8bit() ? TensorType::bf16 : model_.precision(); }

    // Matrices [rows, columns], or [columns, rows] of the same, rounded to 8 bits row by row, with zeros up
    // to padded_rows and to columns that are a multiple of 16.
    struct Bytes {
        const void* values;
        const float* scale;  // [matrices, padded_rows]
    };
    Bytes bytes(const float* wide, size_t matrices, const Matrix& m, bool transposed = false) {
        const size_t lines = transposed ? m.columns : m.padded_rows,
                     length = cuda::byte_row(transposed ? m.rows : m.columns);
        std::vector<int8_t> values(matrices * lines * length), row(m.columns);
        std::vector<float> scales(matrices * m.padded_rows);
        for (size_t i = 0; i < matrices; ++i) {
            int8_t* to = values.data() + i * lines * length;
            for (size_t r = 0; r < m.rows; ++r, wide += m.columns) {
                float& scale = scales[i * m.padded_rows + r];
                scale = row_scale(wide, m.columns);
                quantize_row(wide, scale, transposed ? row.data() : to + r * length, m.columns);
                for (size_t c = 0; c < m.columns && transposed; ++c)
                    to[c * length + r] = row[c];
            }
        }
        return {uploaded(values.data(), values.size()),
                static_cast<const float*>(uploaded(scales.data(), scales.size() * sizeof(float)))};
    }
    CudaDense byte_dense(const char* weight, const char* bias, const Matrix& m, CudaDense layer) {
        const Bytes b = bytes(values_.passing(weight, true), 1, m);
        layer.weight = b.values;
        layer.scale = b.scale;
        if (bias != nullptr) layer.bias = matrix(bias, TensorType::f32, {1, m.rows, 1, m.padded_rows});
        return layer;
    }

    // bias: null where there is none. The library wants it in the output's type.
    CudaDense dense(const char* weight, const char* bias, const Matrix& m, Activation activation,
                    TensorType output) {
        CudaDense layer;
        if (is_8bit()) {
            layer.shape = {
                cuda::byte_row(m.columns), m.padded_rows, TensorType::s8, output, activation, false};
            return byte_dense(weight, bias, m, layer);
        }
        layer.shape = {m.padded_columns, m.padded_rows, model_.precision(), output, activation, false};
        layer.weight = matrix(weight, model_.precision(), m);
        if (bias != nullptr) layer.bias = matrix(bias, output, {1, m.rows, 1, m.padded_rows});
        return layer;
    }

    CudaDense output() {
        const char* name = spec_.has(model_flag::tied_output) ? "embeddings.word" : "output.weight";
        const size_t hidden = spec_.hidden, rows = spec_.vocabulary,
                     padded = round_up(rows, cuda::hidden_multiple);
        if (name == std::string_view("embeddings.word") && model_.precision() == TensorType::f32 &&
            padded == rows) {
            CudaDense layer;
            layer.shape = {hidden, rows, TensorType::f32, TensorType::f32, Activation::none, false};
            layer.weight = target_.embeddings_.words;
            return layer;
        }
        return dense(name, nullptr, {rows, hidden, padded, hidden}, Activation::none, TensorType::f32);
    }

    // [2 padded, hidden]: gates, and behind them what they are multiplied with.
    CudaDense gates(size_t b, size_t p, const PartSpec& spec, size_t padded) {
        const size_t hidden = spec_.hidden, half = padded * hidden;
        const TensorType type = model_.precision();
        CudaDense layer;
        layer.shape = {hidden, 2 * padded, type, type, Activation::none, false};
        padded_.assign(2 * half, 0.0F);
        std::copy_n(values_.passing(part_tensor(b, p, "gate.weight").text), spec.width * hidden,
                    padded_.data());
        std::copy_n(values_.passing(part_tensor(b, p, "up.weight").text), spec.width * hidden,
                    padded_.data() + half);
        layer.weight = rounded(padded_.data(), 2 * padded, hidden, type);
        if (!spec.has(part_flag::gate_bias) && !spec.has(part_flag::up_bias)) return layer;
        padded_.assign(2 * padded, 0.0F);
        if (spec.has(part_flag::gate_bias))
            std::copy_n(values_.passing(part_tensor(b, p, "gate.bias").text), spec.width, padded_.data());
        if (spec.has(part_flag::up_bias))
            std::copy_n(values_.passing(part_tensor(b, p, "up.bias").text), spec.width,
                        padded_.data() + padded);
        layer.bias = rounded(padded_.data(), 1, 2 * padded, type);
        return layer;
    }

    CudaBlock block(size_t b) {
        CudaBlock out;
        const BlockSpec& spec = spec_.blocks[b];
        const size_t hidden = spec_.hidden;
        if (spec.has(block_flag::attention)) {
            const auto name = [&](const char* suffix) {
                return tensor_name("blocks.%llu.attention.%s", static_cast<unsigned long long>(b), suffix);
            };
            const size_t qkv = spec.qkv_width(), query = spec.query_width();
            out.qkv = dense(name("qkv.weight").text,
                            spec.has(block_flag::qkv_bias) ? name("qkv.bias").text : nullptr,
                            {qkv, hidden, qkv, hidden}, Activation::none,
                            spec_.family == Family::decoder ? TensorType::f32 : narrow());
            out.attention_out = dense(name("out.weight").text,
                                      spec.has(block_flag::output_bias) ? name("out.bias").text : nullptr,
                                      {hidden, query, hidden, query}, Activation::none,
                                      reads_narrow() ? TensorType::bf16 : TensorType::f32);
            out.narrow_attention = reads_narrow();
            out.attention_norm = norm(name("norm").text);
        }
        const auto parts = spec_.parts_of(spec);
        if (!parts.empty())
            out.ffn_norm = norm(tensor_name("blocks.%llu.ffn.norm", static_cast<unsigned long long>(b)).text);
        out.narrow_parts = reads_narrow() && has_one_writer(b);
        for (size_t p = 0; p < parts.size(); ++p)
            out.parts.push_back(part(b, p, parts[p], out.narrow_parts ? TensorType::bf16 : TensorType::f32));
        return out;
    }

    bool reads_narrow() const {
        return model_.precision() == TensorType::bf16 && spec_.norm_placement == NormPlacement::post;
    }
    bool is_shared(size_t b, size_t p) const {
        return shares() && spec_.parts_of(spec_.blocks[b])[p].kind == PartKind::dense &&
               model_.prepared().blocks[b].parts[p].up == nullptr;
    }
    bool has_one_writer(size_t b) const {
        const auto parts = spec_.parts_of(spec_.blocks[b]);
        size_t writers = 0;
        for (size_t p = 0; p < parts.size(); ++p) {
            if (!is_shared(b, p)) writers += parts[p].kind == PartKind::leaf_forest ? parts[p].trees : 1;
        }
        return writers == 1;
    }

    // output: of the block's parts.
    CudaPart part(size_t b, size_t p, const PartSpec& spec, TensorType output) {
        CudaPart out;
        out.spec = &spec;
        if (spec.kind == PartKind::dense) {
            if (is_shared(b, p)) return out;
            const size_t width = spec.width, hidden = spec_.hidden,
                         padded = is_8bit() ? cuda::byte_row(width) : round_up(width, cuda::hidden_multiple);
            // In 8 bits a row of activations is rounded with one scale, of what they were exactly.
            const TensorType between = is_8bit() ? TensorType::f32 : model_.precision();
            const auto up_bias = part_tensor(b, p, "up.bias"), down_bias = part_tensor(b, p, "down.bias");
            out.up = spec.has(part_flag::gated)
                         ? gates(b, p, spec, padded)
                         : dense(part_tensor(b, p, "up.weight").text,
                                 spec.has(part_flag::up_bias) ? up_bias.text : nullptr,
                                 {width, hidden, padded, hidden}, spec.activation, between);
            out.down = dense(part_tensor(b, p, "down.weight").text,
                             spec.has(part_flag::output_bias) ? down_bias.text : nullptr,
                             {hidden, width, hidden, padded}, Activation::none, output);
            return out;
        }
        out.forest = forests_++;
        if (spec.kind == PartKind::leaf_forest) {
            out.leaf_forest = leaf_forest(b, p, spec);
            if (shares() && model_.prepared().blocks[b].parts[p].leaf_forest.shared_width > 0)
                share(b, p, out.leaf_forest);
        } else {
            out.neuron_forest = neuron_forest(b, p, spec);
        }
        return out;
    }

    cuda::Trees trees(const PartSpec& spec) const {
        cuda::Trees t;
        t.hidden = spec_.hidden;
        t.trees = spec.trees;
        t.neurons = spec.kind == PartKind::neuron_forest;
        t.levels = spec.depth + (t.neurons ? 1 : 0);
        t.zero_goes_right = spec.tie == TieRule::zero_goes_right;
        t.activation = spec.activation;
        return t;
    }

    // Node rows are float32 in every precision. A walk adds an offset: less the threshold.
    cuda::LeafForest leaf_forest(size_t b, size_t p, const PartSpec& spec) {
        cuda::LeafForest f;
        f.trees = trees(spec);
        f.leaf_width = spec.leaf_width;
        f.rows = model_.precision();
        if (spec.depth > 0) {
            f.trees.nodes = floats(part_tensor(b, p, "node.weight").text);
            const auto name = part_tensor(b, p, "node.threshold");
            const size_t count = file_.at(name.text).elements();
            const float* thresholds = values_.passing(name.text);
            std::vector<float> offsets(count);
            std::transform(thresholds, thresholds + count, offsets.begin(), [](float t) { return -t; });
            f.trees.offset = static_cast<const float*>(uploaded(offsets.data(), count * sizeof(float)));
        }
        if (spec.leaf_width > 0 && is_8bit()) {
            byte_leaves(b, p, spec, f);
        } else if (spec.leaf_width > 0) {
            f.up = rows(part_tensor(b, p, "leaf.up.weight").text, f.rows);
            f.down = rows(part_tensor(b, p, "leaf.down.weight").text, f.rows, true);
            f.up_bias = floats_if(spec.has(part_flag::up_bias), part_tensor(b, p, "leaf.up.bias").text);
        }
        f.bias = floats_if(spec.has(part_flag::output_bias), part_tensor(b, p, "leaf.bias").text);
        return f;
    }

    void byte_leaves(size_t b, size_t p, const PartSpec& spec, cuda::LeafForest& f) {
        const size_t leaves = f.trees.trees * f.trees.leaves(), width = spec.leaf_width,
                     hidden = spec_.hidden, padded = cuda::byte_row(width);
        const Matrix m{width, hidden, padded, hidden};
        const Bytes up = bytes(values_.passing(part_tensor(b, p, "leaf.up.weight").text, true), leaves, m);
        f.up = up.values;
        f.up_scale = up.scale;
        const Bytes down =
            bytes(values_.passing(part_tensor(b, p, "leaf.down.weight").text, true, true), leaves, m, true);
        f.down = down.values;
        f.down_scale = down.scale;
        f.rotated_activations = rotation_span(width) > 1;
        if (spec.has(part_flag::up_bias))
            f.up_bias = static_cast<const float*>(matrix(part_tensor(b, p, "leaf.up.bias").text,
                                                         TensorType::f32, {leaves, width, leaves, padded}));
    }

    // What the model fuses for the CPU, a small dense part with a leaf forest, is fused here too.
    bool shares() const { return model_.precision() != TensorType::f32; }
    void share(size_t b, size_t p, cuda::LeafForest& f) {
        const auto parts = spec_.parts_of(spec_.blocks[b]);
        size_t d = 0;
        while (!is_shared(b, d))
            ++d;
        f.shared_width = parts[d].width;
        if (is_8bit()) {
            share_bytes(b, p, d, f);
            return;
        }
        const auto down = part_tensor(b, d, "down.weight");
        f.shared_up = rows(part_tensor(b, d, "up.weight").text, f.rows);
        f.shared_down = transposed(down.text, spec_.hidden, parts[d].width, f.rows);
        f.shared_up_bias = floats_if(parts[d].has(part_flag::up_bias), part_tensor(b, d, "up.bias").text);
        f.shared_bias = floats_if(parts[d].has(part_flag::output_bias), part_tensor(b, d, "down.bias").text);
    }

    // d: the dense part. Its second layer gets a scale a neuron, as leaves have them.
    void share_bytes(size_t b, size_t p, size_t d, cuda::LeafForest& f) {
        const PartSpec& dense = spec_.parts_of(spec_.blocks[b])[d];
        const size_t width = dense.width, hidden = spec_.hidden, padded = cuda::byte_row(width);
        const Matrix m{width, hidden, padded, hidden};
        const Bytes up = bytes(values_.passing(part_tensor(b, d, "up.weight").text, true), 1, m);
        f.shared_up = up.values;
        f.shared_up_scale = up.scale;
        const float* wide = values_.passing(part_tensor(b, d, "down.weight").text, true);
        std::vector<float> by_neuron(width * hidden);
        for (size_t i = 0; i < hidden; ++i) {
            for (size_t n = 0; n < width; ++n)
                by_neuron[n * hidden + i] = wide[i * width + n];
        }
        const Bytes down = bytes(by_neuron.data(), 1, m, true);
        f.shared_down = down.values;
        f.shared_down_scale = down.scale;
        f.rotated_shared = rotation_span(width) > 1;
        if (dense.has(part_flag::up_bias))
            f.shared_up_bias = static_cast<const float*>(
                matrix(part_tensor(b, d, "up.bias").text, TensorType::f32, {1, width, 1, padded}));
        if (dense.has(part_flag::output_bias))
            add_to_biases(part_tensor(b, d, "down.bias").text, part_tensor(b, p, "leaf.bias").text, f);
    }
    // f.bias, with another part's in those of its first tree.
    void add_to_biases(const char* other, const char* own, cuda::LeafForest& f) {
        const size_t hidden = spec_.hidden, leaves = f.trees.leaves();
        std::vector<float> sums(f.trees.trees * leaves * hidden);
        if (f.bias != nullptr) std::copy_n(values_.passing(own), sums.size(), sums.begin());
        const float* added = values_.passing(other);
        for (size_t i = 0; i < leaves * hidden; ++i)
            sums[i] += added[i % hidden];
        f.bias = static_cast<const float*>(uploaded(sums.data(), sums.size() * sizeof(float)));
    }

    cuda::NeuronForest neuron_forest(size_t b, size_t p, const PartSpec& spec) {
        cuda::NeuronForest f;
        f.trees = trees(spec);
        f.trees.rows = model_.precision();
        if (is_8bit()) {
            const Matrix m{spec.trees * f.trees.nodes_per_tree(), spec_.hidden,
                           spec.trees * f.trees.nodes_per_tree(), spec_.hidden};
            const Bytes in = bytes(values_.passing(part_tensor(b, p, "in.weight").text), 1, m);
            f.trees.nodes = in.values;
            f.trees.scale = in.scale;
            const Bytes out = bytes(values_.passing(part_tensor(b, p, "out.weight").text), 1, m);
            f.out = out.values;
            f.out_scale = out.scale;
        } else {
            f.trees.nodes = rows(part_tensor(b, p, "in.weight").text, f.trees.rows);
            if (spec.has(part_flag::gated)) {
                f.trees.gates = rows(part_tensor(b, p, "gate.weight").text, f.trees.rows);
                f.trees.routes_on_gate = spec.routes_on == RoutesOn::gate;
            }
            f.out = rows(part_tensor(b, p, "out.weight").text, f.trees.rows);
        }
        f.trees.offset = floats_if(spec.has(part_flag::up_bias), part_tensor(b, p, "in.bias").text);
        f.out_bias = floats_if(spec.has(part_flag::output_bias), part_tensor(b, p, "out.bias").text);
        return f;
    }

    const Model& model_;
    const ModelFile& file_;
    const ModelSpec& spec_;
    CudaModel& target_;
    TensorValues values_;
    std::vector<float> padded_;
    std::vector<uint16_t> narrow_;
    size_t forests_ = 0;
};

CudaModel::CudaModel(const Model& model, const cuda::Device& device) : device_(device) {
    refuse_what_does_not_run(model, device);
    cuda::check(cudaSetDevice(device.number), "choosing the device");
    CudaUpload(model, *this).run();
}

size_t CudaModel::bytes() const {
    size_t total = 0;
    for (const cuda::Buffer& buffer : buffers_)
        total += buffer.bytes();
    return total;
}

std::shared_ptr<const CudaModel> CudaModel::of(const Model& model, int number) {
    // A model that was closed had no contexts left, so its entry is empty.
    static std::mutex mutex;
    static std::map<std::pair<const Model*, int>, std::weak_ptr<const CudaModel>> made;
    const std::lock_guard lock(mutex);
    std::erase_if(made, [](const auto& entry) { return entry.second.expired(); });
    auto& entry = made[{&model, number}];
    auto there = entry.lock();
    if (there == nullptr) entry = there = std::make_shared<const CudaModel>(model, cuda::device(number));
    return there;
}

}  // namespace espalier
