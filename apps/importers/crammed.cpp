#include "apps/importers/crammed.h"

#include <cmath>

#include "apps/importers/bert.h"
#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

// A part of config.json's "arch", which must be an object.
JsonFile section(const JsonFile& parent, const char* key) {
    if (!parent.has(key) || !parent.value()[key].is_object())
        throw Error(Status::bad_model, "%s: %s: expected an object, found none", parent.name().c_str(), key);
    return {parent.name() + ": " + key, parent.value()[key]};
}

// Switches of the architecture that change what is computed, and the one value that runs here.
void expect(const JsonFile& config, const char* key, const char* value) {
    const std::string found = config.text(key);
    if (found != value)
        throw Error(Status::unsupported, "%s: %s: expected %s, found %s", config.name().c_str(), key, value,
                    found.c_str());
}
void expect_off(const JsonFile& config, const char* key) {
    if (config.flag_or(key, false))
        throw Error(Status::unsupported, "%s: %s: expected false, found true", config.name().c_str(), key);
}

Activation torch_activation(const JsonFile& config, const char* key) {
    const std::string name = config.text(key);
    if (name == "GELU") return Activation::gelu_erf;
    if (name == "ReLU") return Activation::relu;
    if (name == "SiLU") return Activation::silu;
    if (name == "Tanh") return Activation::tanh;
    throw Error(Status::unsupported, "%s: %s: expected GELU, ReLU, SiLU or Tanh, found %s",
                config.name().c_str(), key, name.c_str());
}

// [rows, columns] to [columns, rows].
std::vector<float> transposed(const std::vector<float>& values, size_t rows, size_t columns) {
    std::vector<float> out(values.size());
    for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < columns; ++c)
            out[c * rows + r] = values[r * columns + c];
    }
    return out;
}

// The checkpoint's rows go head by head, query, key and value of each; ours are all queries, all keys, all
// values.
std::vector<float> grouped_by_kind(const std::vector<float>& values, size_t heads, size_t head_rows) {
    const size_t length = values.size() / (3 * heads * head_rows), piece = head_rows * length;
    std::vector<float> out(values.size());
    for (size_t head = 0; head < heads; ++head) {
        for (size_t kind = 0; kind < 3; ++kind)
            std::copy_n(values.begin() + static_cast<ptrdiff_t>((head * 3 + kind) * piece), piece,
                        out.begin() + static_cast<ptrdiff_t>((kind * heads + head) * piece));
    }
    return out;
}

// Rows of sines and cosines in turn, wave lengths from 2 pi to 10000 * 2 pi (arXiv 1706.03762, section 3.5),
// in float32 as the training code makes them; times a learned scale (FLASH, arXiv 2202.10447).
std::vector<float> sinusoids(size_t positions, size_t hidden, float scale) {
    std::vector<float> table(positions * hidden);
    for (size_t i = 0; i < hidden; i += 2) {
        const float rate = std::exp(static_cast<float>(i) *
                                    static_cast<float>(-std::log(10000.0) / static_cast<double>(hidden)));
        for (size_t p = 0; p < positions; ++p) {
            const float angle = static_cast<float>(p) * rate;
            table[p * hidden + i] = scale * std::sin(angle);
            if (i + 1 < hidden) table[p * hidden + i + 1] = scale * std::cos(angle);
        }
    }
    return table;
}

class CrammedReader {
   public:
    CrammedReader(Import& import, const std::string& folder, const JsonFile& config,
                  const ConvertOptions& options)
        : import_(import),
          spec_(import.spec),
          config_(config),
          arch_(section(config, "arch")),
          options_(options),
          weights_(std::make_shared<Weights>(folder)) {
        import_.files.push_back(weights_);
        for (const std::string& name : weights_->names()) {
            if (name.starts_with("encoder.embedding.")) prefix_ = "encoder.";
        }
    }

    void read() {
        read_sizes();
        add_embeddings();
        const uint32_t layers = arch_.count("num_transformer_layers", 1, layout::max_blocks);
        read_trees();
        for (uint32_t layer = 0; layer < layers; ++layer)
            add_block(layer);
        if (arch_.flag_or("final_norm", false)) {
            spec_.flags |= model_flag::final_norm;
            add_norm("final_norm", "final_norm");
        }
        read_head();
        check_unused();
    }

   private:
    void read_sizes() {
        const JsonFile embedding = section(arch_, "embedding");
        expect(arch_, "norm", "LayerNorm");
        spec_.family = Family::encoder;
        spec_.hidden = arch_.count("hidden_size", 1, layout::max_dimension);
        spec_.vocabulary = embedding.count("vocab_size", 1, layout::max_dimension);
        spec_.max_positions = embedding.count("max_seq_length", 3, layout::max_dimension);
        spec_.norm = Norm::layer_norm;
        spec_.norm_epsilon = arch_.number("norm_eps");
        spec_.norm_placement = NormPlacement::pre;
        spec_.positions = Positions::learned;
        if (arch_.has("norm_scheme")) expect(arch_, "norm_scheme", "pre");
        if (arch_.count_or("ffn_layer_frequency", 1, layout::max_blocks, 1) != 1)
            throw Error(Status::unsupported, "%s: ffn_layer_frequency: expected 1", arch_.name().c_str());
        if (embedding.count("embedding_dim", 1, layout::max_dimension) != spec_.hidden)
            throw Error(Status::unsupported, "%s: embedding_dim: expected hidden_size, %u, found %u",
                        embedding.name().c_str(), spec_.hidden,
                        embedding.count("embedding_dim", 1, layout::max_dimension));
    }

    using Change = std::function<std::vector<float>(std::vector<float>)>;
    // The tensor of this name behind the prefix, which must have this shape; `change` makes of it what the
    // file has.
    void add(const std::string& target, const std::string& source, const std::vector<uint64_t>& shape,
             std::vector<uint64_t> dimensions = {}, Change change = nullptr) {
        add_named(target, prefix_ + source, shape, std::move(dimensions), std::move(change));
    }
    void add_named(const std::string& target, const std::string& source, const std::vector<uint64_t>& shape,
                   std::vector<uint64_t> dimensions = {}, Change change = nullptr) {
        const Safetensors::Tensor& tensor = weights_->check(source, shape);
        if (dimensions.empty()) dimensions = shape;
        import_.tensors.push_back(
            {target, std::move(dimensions), [file = weights_, &tensor, change = std::move(change)] {
                 auto values = Safetensors::values(tensor);
                 return change ? change(std::move(values)) : values;
             }});
    }
    void add_norm(const std::string& target, const std::string& module) {
        add(target + ".weight", module + ".weight", {spec_.hidden});
        add(target + ".bias", module + ".bias", {spec_.hidden});
    }
    float scalar(const std::string& name, const std::vector<uint64_t>& shape) {
        return Safetensors::values(weights_->check(prefix_ + name, shape)).front();
    }

    // Positions become a table: their scale is one number, and the runtime has one kind of absolute
    // positions.
    void add_embeddings() {
        const JsonFile embedding = section(arch_, "embedding");
        add("embeddings.word", "embedding.word_embedding.weight", {spec_.vocabulary, spec_.hidden});
        const std::vector<uint64_t> shape{spec_.max_positions, spec_.hidden};
        const std::string kind = embedding.text("pos_embedding");
        if (kind == "learned") {
            add("embeddings.position", "embedding.pos_embedding.embedding.weight", shape);
        } else if (kind == "sinusoidal" || kind == "scaled-sinusoidal") {
            const float scale =
                kind == "sinusoidal" ? 1 : scalar("embedding.pos_embedding.scale_factor", {1});
            import_.tensors.push_back({"embeddings.position", shape,
                                       [shape, scale] { return sinusoids(shape[0], shape[1], scale); }});
        } else {
            throw Error(Status::unsupported,
                        "%s: pos_embedding: expected learned, sinusoidal or scaled-sinusoidal, found %s",
                        embedding.name().c_str(), kind.c_str());
        }
        if (!embedding.flag_or("normalization", false)) return;
        spec_.flags |= model_flag::embedding_norm;
        add_norm("embeddings.norm", "embedding.norm");
    }

    // One description for all layers; whether nodes have a bias is read from the tensors, layer by layer.
    void read_trees() {
        expect(arch_, "intermed_type", "fff");
        trees_.kind = PartKind::neuron_forest;
        trees_.activation = torch_activation(arch_, "nonlin");
        trees_.trees = arch_.count("intermed_size", 1, 1u << 16);
        trees_.depth = arch_.count("intermed_depth", 0, layout::max_depth);
    }

    TieRule tie(bool bias) {
        if (options_.zero_goes == "right") return TieRule::zero_goes_right;
        if (options_.zero_goes.empty() && !bias)
            throw Error(
                Status::invalid_argument,
                "%s: trees without linear_in.bias: where does a node's product of zero go? The training code "
                "(fff.py), whose nodes have a bias, sends it left, and fff_bmm.py right: --zero-goes left or "
                "right",
                weights_->path().c_str());
        return TieRule::zero_goes_left;
    }

    void add_block(uint32_t layer) {
        const std::string from = "layers." + std::to_string(layer) + ".",
                          to = "blocks." + std::to_string(layer) + ".";
        BlockSpec block;
        block.first_part = static_cast<uint32_t>(spec_.parts.size());
        block.part_count = 1;
        add_attention(block, from + "attn.", to + "attention.");
        add_norm(to + "attention.norm", from + "norm1");
        add_trees(from + "ffn.", to + "parts.0.");
        add_norm(to + "ffn.norm", from + "norm2");
        spec_.blocks.push_back(block);
    }

    void add_attention(BlockSpec& block, const std::string& from, const std::string& to) {
        const JsonFile attention = section(arch_, "attention");
        expect(attention, "type", "self-attention");
        if (attention.has("sequence_op")) expect(attention, "sequence_op", "torch-softmax");
        for (const char* key : {"causal_attention", "rotary_embedding", "skip_output_projection"})
            expect_off(attention, key);
        const uint32_t heads = attention.count("num_attention_heads", 1, spec_.hidden);
        if (spec_.hidden % heads != 0)
            throw Error(Status::bad_model, "%s: num_attention_heads: expected a divisor of %u, found %u",
                        attention.name().c_str(), spec_.hidden, heads);
        block.flags = block_flag::attention;
        block.heads = block.kv_heads = heads;
        block.head_dimension = spec_.hidden / heads;
        const std::string factor = from + "self_attention.norm_factor";
        block.attention_scale = weights_->has(prefix_ + factor)
                                    ? scalar(factor, {})
                                    : 1 / std::sqrt(static_cast<float>(block.head_dimension));
        const uint64_t h = spec_.hidden;
        const Change group = [heads, rows = block.head_dimension](std::vector<float> values) {
            return grouped_by_kind(values, heads, rows);
        };
        add(to + "qkv.weight", from + "self_attention.query_key_value.weight", {3 * h, h}, {}, group);
        if (attention.flag_or("qkv_bias", false)) {
            block.flags |= block_flag::qkv_bias;
            add(to + "qkv.bias", from + "self_attention.query_key_value.bias", {3 * h}, {}, group);
        }
        add(to + "out.weight", from + "dense.weight", {h, h});
        if (arch_.flag_or("use_bias", false)) {
            block.flags |= block_flag::output_bias;
            add(to + "out.bias", from + "dense.bias", {h});
        }
    }

    void add_trees(const std::string& from, const std::string& to) {
        PartSpec part = trees_;
        const uint64_t k = part.trees, nodes = part.nodes_per_tree(), h = spec_.hidden;
        const bool bias = weights_->has(prefix_ + from + "linear_in.bias");
        part.tie = tie(bias);
        add(to + "in.weight", from + "linear_in.weight", {k * nodes, h}, {k, nodes, h});
        if (bias) {
            part.flags |= part_flag::up_bias;
            add(to + "in.bias", from + "linear_in.bias", {k * nodes}, {k, nodes});
        }
        add(to + "out.weight", from + "linear_out.weight", {h, k * nodes}, {k, nodes, h},
            [h, rows = k * nodes](std::vector<float> values) { return transposed(values, h, rows); });
        if (weights_->has(prefix_ + from + "linear_out.bias")) {
            part.flags |= part_flag::output_bias;
            add(to + "out.bias", from + "linear_out.bias", {h});
        }
        spec_.parts.push_back(part);
    }

    // ScriptableLMForSequenceClassification: pooled hidden states, a dense layer, the labels.
    void read_head() {
        spec_.pooling = Pooling::mean;
        if (!weights_->has("head.weight")) {
            spec_.flags |= model_flag::normalise_output;
            return;
        }
        const JsonFile entry = section(arch_, "classification_head");
        const std::string pooler = entry.text("pooler");
        if (pooler != "avg" && pooler != "zero_index")
            throw Error(Status::unsupported, "%s: pooler: expected avg or zero_index, found %s",
                        entry.name().c_str(), pooler.c_str());
        spec_.pooling = pooler == "avg" ? Pooling::mean : Pooling::cls;
        HeadSpec head;
        head.name = import_.keep(options_.head_name.empty() ? "classifier" : options_.head_name);
        head.flags = head_flag::dense_bias | head_flag::output_bias;
        head.pooling = spec_.pooling;
        head.activation = torch_activation(entry, "nonlin");
        head.dense_width = entry.count("head_dim", 1, layout::max_dimension);
        head.outputs = arch_.count("num_labels", 1, layout::max_labels);
        head.kind = head.outputs == 1 ? HeadKind::regression : HeadKind::classifier;
        if (!entry.flag_or("include_ff_layer", true))
            throw Error(Status::unsupported, "%s: include_ff_layer: expected true, found false",
                        entry.name().c_str());
        const uint64_t width = head.dense_width, outputs = head.outputs;
        add_named("heads.0.dense.weight", "pooler.dense.weight", {width, spec_.hidden});
        add_named("heads.0.dense.bias", "pooler.dense.bias", {width});
        add_named("heads.0.out.weight", "head.weight", {outputs, width});
        add_named("heads.0.out.bias", "head.bias", {outputs});
        read_labels(import_, config_, head);
        spec_.heads.push_back(head);
    }

    // What guesses masked words is no part of an encoder; its matrix is the embedding's.
    void check_unused() {
        for (const std::string& name : weights_->unused()) {
            if (!name.starts_with("decoder.") && !name.starts_with("prediction_head."))
                throw Error(Status::bad_model, "%s: tensor %s: no part of the model uses it",
                            weights_->path_of(name).c_str(), name.c_str());
            import_.notes.push_back("left out: " + name);
        }
    }

    Import& import_;
    ModelSpec& spec_;
    const JsonFile& config_;
    JsonFile arch_;
    const ConvertOptions& options_;
    std::shared_ptr<Weights> weights_;
    std::string prefix_;
    PartSpec trees_;
};

// vocab.txt of the folder or of --base, else the folder's tokenizer.json where that has BERT's rules, else
// none. (The training code's own default has others: runs of punctuation are words, what is not ASCII is
// dropped.)
void add_tokenizer(Import& import, const std::string& folder, const ConvertOptions& options) {
    const std::string& words = JsonFile::exists(folder + "/vocab.txt") ? folder : options.base;
    if (!words.empty()) return import_wordpiece(import, words, options.max_tokens, std::nullopt);
    const std::string json = folder + "/tokenizer.json";
    std::string why = "the folder has neither vocab.txt nor tokenizer.json";
    if (JsonFile::exists(json)) {
        const std::string foreign = import_wordpiece_json(import, json, options.max_tokens);
        if (foreign.empty()) return;
        why = json + ": " + foreign;
    }
    import.spec.tokenizer.max_tokens = limited_tokens(import.spec, options.max_tokens);
    import.notes.push_back(
        "no tokenizer, the model takes ids (--base DIR names a folder with a vocab.txt): " + why);
}

}  // namespace

std::unique_ptr<Import> import_crammed(const std::string& folder, const JsonFile& config,
                                       const ConvertOptions& options) {
    auto import = std::make_unique<Import>();
    CrammedReader(*import, folder, config, options).read();
    if (!options.pooling.empty()) set_pooling(*import, options.pooling);
    add_tokenizer(*import, folder, options);
    return import;
}

}  // namespace espalier
