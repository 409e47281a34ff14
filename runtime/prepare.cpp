#include "runtime/prepare.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "kernels/dense/panel.h"
#include "kernels/dense/panel_pack.h"
#include "kernels/forest/leaf_pack.h"
#include "kernels/quantize/rotate.h"
#include "model_format/schema.h"
#include "runtime/forest_shape.h"
#include "runtime/tensor_values.h"

namespace espalier {
namespace {

// What the format calls packed is what the kernels read.
static_assert(packed_columns == panel_columns && packed_values == panel_group(TensorType::s8));

unsigned long long wide(uint64_t value) {
    return value;
}

class Preparer {
   public:
    Preparer(const ModelFile& file, const KernelTable& kernels, const DenseBackend& backend,
             TensorType precision, std::pmr::memory_resource* memory, PreparedModel& model)
        : file_(file),
          spec_(file.spec()),
          kernels_(kernels),
          backend_(backend),
          precision_(precision),
          model_(model),
          values_(file, kernels, memory) {}

    void run() {
        refuse_what_does_not_run();
        model_.precision = precision_;
        model_.words = table("embeddings.word");
        if (spec_.positions == Positions::learned) model_.positions = table("embeddings.position");
        if (spec_.token_types > 0) model_.types = table("embeddings.type");
        if (spec_.has(model_flag::embedding_norm)) model_.embedding_norm = norm("embeddings.norm");
        if (spec_.has(model_flag::final_norm)) model_.final_norm = norm("final_norm");
        for (size_t b = 0; b < spec_.blocks.size(); ++b)
            model_.blocks.push_back(block(b));
        for (size_t h = 0; h < spec_.heads.size(); ++h)
            model_.heads.push_back(head(h));
        if (spec_.family == Family::decoder)
            model_.output = dense(spec_.has(model_flag::tied_output) ? "embeddings.word" : "output.weight",
                                  nullptr, Activation::none, precision_);
        values_.release();
    }

   private:
    void refuse_what_does_not_run() const {
        const auto refuse = [&](const char* what) {
            throw Error(Status::unsupported, "%s: %s do not run in this version", file_.source(), what);
        };
        const bool decoder = spec_.family == Family::decoder;
        if (decoder) refuse_what_does_not_decode();
        if (!decoder && spec_.positions == Positions::rotary) refuse("encoders with rotary positions");
        if (spec_.positions == Positions::sinusoidal) refuse("sinusoidal positions");
        if (spec_.embedding_scale != 1 || spec_.position_scale != 1) refuse("scaled embeddings");
        for (const BlockSpec& b : spec_.blocks) {
            if (b.window != 0) refuse("attention within a window");
            if (!decoder && b.has(block_flag::causal)) refuse("encoders with causal attention");
            if (decoder && b.has(block_flag::attention) && !b.has(block_flag::causal))
                refuse("decoders with attention that is not causal");
        }
    }
    void refuse_what_does_not_decode() const {
        const auto refuse = [&](const char* what) {
            throw Error(Status::unsupported, "%s: decoders with %s do not run in this version",
                        file_.source(), what);
        };
        if (spec_.positions == Positions::learned) refuse("learned positions");
        if (spec_.token_types > 0) refuse("token types");
        if (spec_.logit_scale != 1) refuse("scaled logits");
    }

    EmbeddingTable table(const char* name) const {
        EmbeddingTable table{&file_.at(name), nullptr};
        if (table.tensor->scales == TensorScales::per_column)
            throw Error(Status::unsupported, "%s: tensor %s: scales by column are not read for embeddings",
                        file_.source(), name);
        if (table.tensor->scales == TensorScales::per_row)
            table.scales = file_.at(tensor_name("%s.scale", name)).as<float>();
        return table;
    }

    // For weights that the kernels read row by row, as long as the model lives. Never turned: no such tensor
    // is.
    const float* kept(const char* name) {
        const TensorView& tensor = file_.at(name);
        return tensor.type == TensorType::f32
                   ? tensor.as<float>()
                   : values_.widened(tensor, model_.weights.floats(tensor.elements()));
    }
    const float* kept_if(bool present, const char* name) { return present ? kept(name) : nullptr; }

    bool is_8bit() const { return precision_ == TensorType::s8; }
    // Whether the kernels read the tensor in the file as it is.
    bool lies_packed(const TensorView& tensor) const {
        return is_8bit() && tensor.layout == TensorLayout::packed;
    }

    NormWeights norm(const char* prefix) {
        NormWeights n;
        n.hidden = spec_.hidden;
        n.epsilon = spec_.norm_epsilon;
        n.rms = spec_.norm == Norm::rms_norm;
        n.weight = kept(tensor_name("%s.weight", prefix).text);
        n.bias =
            kept_if(!n.rms && !spec_.has(model_flag::norm_without_bias), tensor_name("%s.bias", prefix).text);
        return n;
    }

    std::unique_ptr<DenseLayer> dense(const char* weight, const char* bias, Activation activation,
                                      TensorType precision, TensorType output = TensorType::f32) {
        const TensorView& tensor = file_.at(weight);
        DenseShape shape;
        shape.inputs = tensor.dimensions[1];
        shape.outputs = tensor.dimensions[0];
        shape.activation = activation;
        shape.bias = bias != nullptr;
        shape.input = precision;
        shape.output = output;
        shape.row_scales = precision == TensorType::s8;
        const float* bias_data = bias != nullptr ? kept(bias) : nullptr;
        auto* memory = model_.weights.memory();
        auto layer =
            shape.row_scales && tensor.layout == TensorLayout::packed
                ? backend_.prepare_packed(
                      shape, {tensor.as<uint32_t>(), values_.scales_of(tensor), bias_data}, memory)
                : backend_.prepare(shape, values_.passing(weight, shape.row_scales), bias_data, memory);
        model_.dense_bytes += layer->bytes();
        return layer;
    }

    PreparedBlock block(size_t b) {
        PreparedBlock out;
        out.spec = &spec_.blocks[b];
        if (out.spec->has(block_flag::attention)) {
            out.attention = {out.spec->heads, out.spec->kv_heads, out.spec->head_dimension,
                             out.spec->attention_scale};
            const auto name = [&](const char* suffix) {
                return tensor_name("blocks.%llu.attention.%s", wide(b), suffix);
            };
            out.cache = attentions_++;
            // A cache is float32.
            if (out.attention.fits_narrow() && spec_.family == Family::encoder)
                out.narrow_attention = kernels_.narrow_attention(precision_);
            const bool qkv_bias = out.spec->has(block_flag::qkv_bias),
                       output_bias = out.spec->has(block_flag::output_bias);
            out.qkv =
                dense(name("qkv.weight").text, qkv_bias ? name("qkv.bias").text : nullptr, Activation::none,
                      precision_, out.narrow_attention != nullptr ? TensorType::bf16 : TensorType::f32);
            out.attention_out = dense(name("out.weight").text, output_bias ? name("out.bias").text : nullptr,
                                      Activation::none, precision_);
            out.attention_norm = norm(name("norm").text);
        }
        const auto parts = spec_.parts_of(*out.spec);
        if (!parts.empty()) out.ffn_norm = norm(tensor_name("blocks.%llu.ffn.norm", wide(b)).text);
        const Fusion fusion = fused_parts(parts);
        for (size_t p = 0; p < parts.size(); ++p)
            out.parts.push_back(part(b, p, parts, fusion));
        return out;
    }

    // A dense part whose neurons a leaf forest of the same block runs in its own tiles: x is read and y
    // written once, and there is one call instead of three. Only a narrow one: the forest goes through its
    // weights once a leaf, which is free as long as they stay in a second-level cache beside the leaf's own.
    struct Fusion {
        size_t dense = SIZE_MAX, forest = SIZE_MAX;
    };
    static Fusion fused_parts(std::span<const PartSpec> parts) {
        constexpr size_t widest = 4;  // times a leaf
        for (size_t d = 0; d < parts.size(); ++d) {
            for (size_t l = 0; l < parts.size() && parts[d].kind == PartKind::dense; ++l) {
                if (parts[l].kind == PartKind::leaf_forest && !parts[d].has(part_flag::gated) &&
                    !parts[l].has(part_flag::gated) && parts[l].activation == parts[d].activation &&
                    parts[d].width <= widest * parts[l].leaf_width)
                    return {d, l};
            }
        }
        return {};
    }

    PreparedPart part(size_t b, size_t p, std::span<const PartSpec> parts, const Fusion& fusion) {
        const PartSpec& spec = parts[p];
        PreparedPart out;
        out.spec = &spec;
        if (spec.kind == PartKind::dense) {
            if (p == fusion.dense) return out;
            const auto up_bias = part_tensor(b, p, "up.bias"), down_bias = part_tensor(b, p, "down.bias");
            const bool gated = spec.has(part_flag::gated);
            out.up = dense(part_tensor(b, p, "up.weight").text,
                           spec.has(part_flag::up_bias) ? up_bias.text : nullptr,
                           gated ? Activation::none : spec.activation, precision_,
                           precision_ == TensorType::bf16 && !gated ? TensorType::bf16 : TensorType::f32);
            const auto gate_bias = part_tensor(b, p, "gate.bias");
            if (gated)
                out.gate = dense(part_tensor(b, p, "gate.weight").text,
                                 spec.has(part_flag::gate_bias) ? gate_bias.text : nullptr, spec.activation,
                                 precision_);
            out.down = dense(part_tensor(b, p, "down.weight").text,
                             spec.has(part_flag::output_bias) ? down_bias.text : nullptr, Activation::none,
                             precision_);
            return out;
        }
        out.forest = model_.forests++;
        if (spec.kind == PartKind::leaf_forest) {
            const bool fuses = p == fusion.forest;
            out.leaf_forest = leaf_forest(b, p, spec, fuses ? &parts[fusion.dense] : nullptr, fusion.dense);
        } else {
            out.neuron_forest = neuron_forest(b, p, spec);
        }
        return out;
    }

    // shared: the dense part, number s of the block, that is fused with this one, or null.
    LeafForest leaf_forest(size_t b, size_t p, const PartSpec& spec, const PartSpec* shared, size_t s) {
        auto shape = forest_shape<LeafForest>(spec, spec_.hidden);
        shape.leaf_width = spec.leaf_width;
        shape.shared_width = shared != nullptr ? shared->width : 0;
        shape.rows = precision_;
        shape.rotated_activations = is_8bit();
        shape.gated = spec.has(part_flag::gated) && spec.leaf_width > 0;
        const bool lie_packed = leaves_lie_packed(b, p, spec);
        float* memory = model_.weights.floats(LeafPacker::bytes(shape, lie_packed) / sizeof(float));
        LeafPacker packer(shape, reinterpret_cast<std::byte*>(memory), lie_packed);
        const auto read = [&](size_t of, const char* suffix) {
            return values_.passing(part_tensor(b, of, suffix).text);
        };
        const auto read_rows = [&](size_t of, const char* suffix, bool before_last = false) {
            return values_.passing(part_tensor(b, of, suffix).text, is_8bit(), before_last);
        };
        if (spec.depth > 0)
            packer.nodes(kept(part_tensor(b, p, "node.weight").text),
                         kept(part_tensor(b, p, "node.threshold").text));
        if (spec.has(part_flag::output_bias)) packer.output_bias(read(p, "leaf.bias"));
        if (lie_packed) {
            const TensorView& up = file_.at(part_tensor(b, p, "leaf.up.weight"));
            const TensorView& down = file_.at(part_tensor(b, p, "leaf.down.weight"));
            packer.packed_leaves(up.as<uint32_t>(), values_.scales_of(up), down.as<uint32_t>(),
                                 values_.scales_of(down));
        } else if (spec.leaf_width > 0) {
            packer.up(read_rows(p, "leaf.up.weight"));
            packer.down(read_rows(p, "leaf.down.weight", true));
        }
        if (shape.gated) packer.gate(read_rows(p, "leaf.gate.weight"));
        if (spec.leaf_width > 0) {
            if (spec.has(part_flag::up_bias)) packer.up_bias(read(p, "leaf.up.bias"));
        }
        if (shared != nullptr) {
            packer.shared_up(read_rows(s, "up.weight"));
            packer.shared_down(read_rows(s, "down.weight"));
            if (shared->has(part_flag::up_bias)) packer.shared_up_bias(read(s, "up.bias"));
            if (shared->has(part_flag::output_bias)) packer.shared_output_bias(read(s, "down.bias"));
        }
        return packer.forest();
    }

    bool leaves_lie_packed(size_t b, size_t p, const PartSpec& spec) const {
        return spec.leaf_width > 0 && lies_packed(file_.at(part_tensor(b, p, "leaf.up.weight"))) &&
               lies_packed(file_.at(part_tensor(b, p, "leaf.down.weight")));
    }

    NeuronForest neuron_forest(size_t b, size_t p, const PartSpec& spec) {
        auto f = forest_shape<NeuronForest>(spec, spec_.hidden);
        f.rows = precision_;
        f.in = rows(part_tensor(b, p, "in.weight").text, f.in_scale);
        if (spec.has(part_flag::gated)) f.gate = rows(part_tensor(b, p, "gate.weight").text, f.gate_scale);
        f.routes_on_gate = spec.routes_on == RoutesOn::gate;
        f.in_bias = kept_if(spec.has(part_flag::up_bias), part_tensor(b, p, "in.bias").text);
        f.out = rows(part_tensor(b, p, "out.weight").text, f.out_scale);
        f.out_bias = kept_if(spec.has(part_flag::output_bias), part_tensor(b, p, "out.bias").text);
        return f;
    }

    // Rows in the precision of the arithmetic, in place where they are stored in it; 8-bit: and their scales.
    const void* rows(const char* name, const float*& scales) {
        const TensorView& tensor = file_.at(name);
        if (precision_ == TensorType::f32) return kept(name);
        const bool by_row = tensor.scales == TensorScales::per_row;
        if (tensor.type == precision_ && (precision_ != TensorType::s8 || by_row)) {
            if (precision_ == TensorType::s8) scales = file_.at(tensor_name("%s.scale", name)).as<float>();
            return tensor.bytes.data();
        }
        const size_t count = tensor.rows(), length = tensor.row_length();
        const float* wide = values_.passing(name);
        void* narrow = model_.weights.floats((count * length * bytes_of(precision_) + 3) / 4);
        if (precision_ == TensorType::s8) {
            float* made = model_.weights.floats(count);
            for (size_t r = 0; r < count; ++r) {
                made[r] = row_scale(wide + r * length, length);
                quantize_row(wide + r * length, made[r], static_cast<int8_t*>(narrow) + r * length, length);
            }
            scales = made;
        } else {
            kernels_.round(precision_, false, wide, count, length, narrow, nullptr);
        }
        return narrow;
    }

    PreparedHead head(size_t h) {
        PreparedHead out;
        out.spec = &spec_.heads[h];
        const auto name = [&](const char* suffix) { return tensor_name("heads.%llu.%s", wide(h), suffix); };
        if (out.spec->dense_width > 0) {
            out.dense = dense(name("dense.weight").text,
                              out.spec->has(head_flag::dense_bias) ? name("dense.bias").text : nullptr,
                              out.spec->activation, TensorType::f32);
        }
        out.out = dense(name("out.weight").text,
                        out.spec->has(head_flag::output_bias) ? name("out.bias").text : nullptr,
                        Activation::none, TensorType::f32);
        return out;
    }

    const ModelFile& file_;
    const ModelSpec& spec_;
    const KernelTable& kernels_;
    const DenseBackend& backend_;
    TensorType precision_;
    PreparedModel& model_;
    TensorValues values_;
    size_t attentions_ = 0;  // blocks with attention so far
};

}  // namespace

void prepare(const ModelFile& file, const KernelTable& kernels, const DenseBackend& backend,
             TensorType precision, std::pmr::memory_resource* memory, PreparedModel& model) {
    Preparer(file, kernels, backend, precision, memory, model).run();
}

TensorType stored_precision(const ModelFile& file) {
    TensorType narrowest = TensorType::f32;
    for (const TensorView& tensor : file.tensors()) {
        if (!tensor.name.starts_with("blocks.")) continue;
        if (tensor.type == TensorType::s8) return TensorType::s8;
        if (tensor.type == TensorType::bf16) narrowest = TensorType::bf16;
    }
    return narrowest;
}

}  // namespace espalier
