#include "apps/importers/bert.h"

#include <cmath>

#include "apps/importers/fast_feedforward.h"
#include "base/error.h"
#include "base/float16.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

std::vector<float> rounded_to_half(std::vector<float> values) {
    for (float& value : values)
        value = float_from_half(half_from_float(value));
    return values;
}

std::string layer_name(const std::string& prefix, size_t layer) {
    return prefix + "encoder.layer." + std::to_string(layer) + ".";
}

}  // namespace

Activation activation_named(const JsonFile& config, const char* key) {
    const std::string name = config.text(key);
    if (name == "gelu") return Activation::gelu_erf;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast")
        return Activation::gelu_tanh;
    if (name == "relu") return Activation::relu;
    if (name == "silu" || name == "swish") return Activation::silu;
    throw Error(Status::unsupported, "%s: %s: expected gelu, gelu_new, relu or silu, found %s",
                config.name().c_str(), key, name.c_str());
}

Pooling pooling_named(const std::string& name) {
    if (name == "mean") return Pooling::mean;
    if (name == "cls") return Pooling::cls;
    throw Error(Status::invalid_argument, "pooling: expected mean or cls, found %s", name.c_str());
}

BertReader::BertReader(Import& import, std::shared_ptr<Weights> weights, const JsonFile& config)
    : import_(import), weights_(std::move(weights)), config_(config) {
    import_.files.push_back(weights_);
    for (const std::string& name : weights_->names()) {
        if (name.starts_with("bert.encoder.")) prefix_ = "bert.";
    }
}

void BertReader::read_sizes() {
    ModelSpec& s = import_.spec;
    s.family = Family::encoder;
    s.hidden = config_.count("hidden_size", 1, layout::max_dimension);
    s.vocabulary = config_.count("vocab_size", 1, layout::max_dimension);
    s.max_positions = config_.count("max_position_embeddings", 3, layout::max_dimension);
    s.token_types = config_.count_or("type_vocab_size", 0, 256, 2);
    s.norm = Norm::layer_norm;
    s.norm_epsilon = config_.number("layer_norm_eps");
    const std::string placement = config_.text_or("norm", "post");
    if (placement != "post" && placement != "pre")
        throw Error(Status::bad_model, "%s: norm: expected post or pre, found %s", config_.name().c_str(),
                    placement.c_str());
    s.norm_placement = placement == "post" ? NormPlacement::post : NormPlacement::pre;
    s.positions = Positions::learned;
    const std::string positions = config_.text_or("position_embedding_type", "absolute");
    if (positions != "absolute")
        throw Error(Status::unsupported, "%s: position_embedding_type: expected absolute, found %s",
                    config_.name().c_str(), positions.c_str());
    for (const char* key : {"is_decoder", "add_cross_attention"}) {
        if (config_.flag_or(key, false))
            throw Error(Status::unsupported, "%s: %s: expected false, found true", config_.name().c_str(),
                        key);
    }
    s.flags |= model_flag::embedding_norm;
}

void BertReader::add(const std::string& target, const std::string& source, std::vector<uint64_t> shape,
                     std::vector<uint64_t> dimensions) {
    const Safetensors::Tensor& tensor = weights_->check(source, shape);
    import_.tensors.push_back({target, dimensions.empty() ? std::move(shape) : std::move(dimensions),
                               [file = weights_, &tensor] { return Safetensors::values(tensor); }});
}

void BertReader::add_changed(const std::string& target, const std::string& source,
                             std::vector<uint64_t> shape, std::vector<uint64_t> dimensions,
                             std::function<std::vector<float>(std::vector<float>)> change) {
    const Safetensors::Tensor& tensor = weights_->check(source, shape);
    import_.tensors.push_back(
        {target, std::move(dimensions), [file = weights_, &tensor, change = std::move(change)] {
             return change(Safetensors::values(tensor));
         }});
}

void BertReader::add_stacked(const std::string& target, const std::vector<std::string>& sources,
                             std::vector<uint64_t> shape) {
    std::vector<const Safetensors::Tensor*> tensors;
    tensors.reserve(sources.size());
    for (const std::string& source : sources)
        tensors.push_back(&weights_->check(source, shape));
    shape[0] *= sources.size();
    import_.tensors.push_back(
        {target, std::move(shape), [file = weights_, tensors] { return Safetensors::stacked(tensors); }});
}

// Checkpoints of TensorFlow origin call weight and bias gamma and beta.
std::string BertReader::norm_name(const std::string& module, bool weight) const {
    const std::string old = module + (weight ? ".gamma" : ".beta");
    return weights_->has(old) ? old : module + (weight ? ".weight" : ".bias");
}

void BertReader::add_norm(const std::string& target, const std::string& module) {
    add(target + ".weight", norm_name(module, true), {import_.spec.hidden});
    add(target + ".bias", norm_name(module, false), {import_.spec.hidden});
}

void BertReader::add_embedding_norm() {
    add_norm("embeddings.norm", prefix_ + "embeddings.LayerNorm");
}

void BertReader::add_embeddings(const std::shared_ptr<Weights>& tables, bool round_to_half) {
    const ModelSpec& s = import_.spec;
    const auto table = [&](const char* target, const char* name, uint64_t rows) {
        std::string source = std::string("embeddings.") + name + "_embeddings.weight";
        if (!tables->has(source)) source = "bert." + source;
        const std::vector<uint64_t> shape{rows, s.hidden};
        const Safetensors::Tensor& tensor =
            tables->check(tables->has(source) ? source : source.substr(5), shape);
        import_.tensors.push_back({target, shape, [tables, &tensor, round_to_half] {
                                       auto values = Safetensors::values(tensor);
                                       return round_to_half ? rounded_to_half(std::move(values)) : values;
                                   }});
    };
    table("embeddings.word", "word", s.vocabulary);
    table("embeddings.position", "position", s.max_positions);
    if (s.token_types > 0) table("embeddings.type", "token_type", s.token_types);
}

void BertReader::add_attention_block(size_t layer, bool attention) {
    ModelSpec& s = import_.spec;
    BlockSpec block;
    block.first_part = static_cast<uint32_t>(s.parts.size());
    if (attention) {
        const uint32_t heads = config_.count("num_attention_heads", 1, s.hidden);
        if (s.hidden % heads != 0)
            throw Error(Status::bad_model,
                        "%s: num_attention_heads: expected a divisor of hidden_size %u, found %u",
                        config_.name().c_str(), s.hidden, heads);
        block.flags = block_flag::attention | block_flag::qkv_bias | block_flag::output_bias;
        block.heads = block.kv_heads = heads;
        block.head_dimension = s.hidden / heads;
        block.attention_scale = 1.0F / std::sqrt(static_cast<float>(block.head_dimension));
        const std::string from = layer_name(prefix_, layer) + "attention.",
                          to = "blocks." + std::to_string(layer) + ".attention.";
        const std::vector<std::string> modules{from + "self.query", from + "self.key", from + "self.value"};
        const uint64_t h = s.hidden;
        add_stacked(to + "qkv.weight",
                    {modules[0] + ".weight", modules[1] + ".weight", modules[2] + ".weight"}, {h, h});
        add_stacked(to + "qkv.bias", {modules[0] + ".bias", modules[1] + ".bias", modules[2] + ".bias"}, {h});
        add(to + "out.weight", from + "output.dense.weight", {h, h});
        add(to + "out.bias", from + "output.dense.bias", {h});
        add_norm(to + "norm", from + "output.LayerNorm");
    }
    s.blocks.push_back(block);
}

void BertReader::add_part(const PartSpec& part) {
    import_.spec.parts.push_back(part);
    ++import_.spec.blocks.back().part_count;
}

void BertReader::add_output_norm(size_t layer) {
    add_norm("blocks." + std::to_string(layer) + ".ffn.norm",
             layer_name(prefix_, layer) + "output.LayerNorm");
}

void BertReader::check_unused(bool pooler_unused) {
    for (const std::string& name : weights_->unused()) {
        const bool harmless = name.ends_with("embeddings.position_ids") ||
                              (pooler_unused && name.starts_with(prefix_ + "pooler.")) ||
                              name.starts_with("cls.predictions.") ||
                              name.starts_with("cls.seq_relationship.");
        if (!harmless)
            throw Error(Status::bad_model, "%s: tensor %s: no part of the model uses it",
                        weights_->path_of(name).c_str(), name.c_str());
        import_.notes.push_back("left out: " + name);
    }
}

void set_pooling(Import& import, const std::string& pooling) {
    import.spec.pooling = pooling_named(pooling);
    for (HeadSpec& head : import.spec.heads)
        head.pooling = import.spec.pooling;
}

namespace {

// What a sentence-transformers folder says beside the BERT: pooling, normalisation, its own length limit.
void read_sentence_transformers(Import& import, const std::string& folder, const ConvertOptions& options) {
    ModelSpec& s = import.spec;
    const std::string pooling_path = folder + "/1_Pooling/config.json";
    if (JsonFile::exists(pooling_path)) {
        const JsonFile pooling(pooling_path);
        const bool mean = pooling.flag_or("pooling_mode_mean_tokens", false),
                   cls = pooling.flag_or("pooling_mode_cls_token", false);
        if (mean == cls)
            throw Error(Status::unsupported,
                        "%s: expected exactly one of pooling_mode_mean_tokens and pooling_mode_cls_token",
                        pooling_path.c_str());
        s.pooling = mean ? Pooling::mean : Pooling::cls;
    } else if (s.heads.empty()) {
        s.pooling = Pooling::mean;
        if (options.pooling.empty())
            import.notes.emplace_back("pooling: mean (the folder names none; --pooling cls changes it)");
    }
    // Without a head the product is a vector for comparing, which is of length 1 as sentence-transformers'.
    if (s.heads.empty()) s.flags |= model_flag::normalise_output;
    const std::string limit_path = folder + "/sentence_bert_config.json";
    if (options.max_tokens == 0 && JsonFile::exists(limit_path)) {
        const JsonFile limit(limit_path);
        if (limit.has("max_seq_length") &&
            limit.count("max_seq_length", 1, layout::max_dimension) < s.max_positions)
            import.notes.push_back("max tokens: " + std::to_string(s.max_positions) +
                                   ", all the positions there are (sentence_bert_config.json suggests " +
                                   std::to_string(limit.count("max_seq_length", 1, layout::max_dimension)) +
                                   "; --max-tokens changes it)");
    }
}

// BertForSequenceClassification: tanh pooler on [CLS], then the classifier.
void read_classifier(BertReader& reader, Import& import, const JsonFile& config,
                     const ConvertOptions& options) {
    if (!reader.weights().has("classifier.weight")) return;
    ModelSpec& s = import.spec;
    const auto& shape = reader.weights().shape_of("classifier.weight");
    if (shape.size() != 2 || shape[0] == 0 || shape[0] > layout::max_labels)
        throw Error(Status::bad_model, "%s: tensor classifier.weight: expected shape [labels, %u], found %s",
                    reader.weights().path().c_str(), s.hidden, shape_text(shape).c_str());
    const uint64_t outputs = shape[0], h = s.hidden;
    HeadSpec head;
    head.name = import.keep(options.head_name.empty() ? "classifier" : options.head_name);
    head.flags = head_flag::dense_bias | head_flag::output_bias;
    head.activation = Activation::tanh;
    head.pooling = Pooling::cls;
    head.dense_width = s.hidden;
    head.outputs = static_cast<uint32_t>(outputs);
    head.kind = outputs == 1 || config.text_or("problem_type", "") == "regression" ? HeadKind::regression
                                                                                   : HeadKind::classifier;
    read_labels(import, config, head);
    s.heads.push_back(head);
    s.pooling = Pooling::cls;
    reader.add("heads.0.dense.weight", reader.prefix() + "pooler.dense.weight", {h, h});
    reader.add("heads.0.dense.bias", reader.prefix() + "pooler.dense.bias", {h});
    reader.add("heads.0.out.weight", "classifier.weight", {outputs, h});
    reader.add("heads.0.out.bias", "classifier.bias", {outputs});
}

}  // namespace

void read_labels(Import& import, const JsonFile& config, HeadSpec& head) {
    if (head.kind != HeadKind::classifier || !config.has("id2label")) return;
    const JsonFile labels(config.name() + ": id2label", config.value()["id2label"]);
    for (uint32_t i = 0; i < head.outputs; ++i)
        import.spec.labels.push_back(import.keep(labels.text(std::to_string(i).c_str())));
    head.label_count = head.outputs;
}

std::unique_ptr<Import> import_bert(const std::string& folder, const JsonFile& config,
                                    const ConvertOptions& options) {
    auto import = std::make_unique<Import>();
    auto weights = std::make_shared<Weights>(folder);
    BertReader reader(*import, weights, config);
    reader.read_sizes();
    ModelSpec& s = import->spec;
    reader.add_embeddings(weights, false);
    reader.add_embedding_norm();
    const uint32_t layers = config.count("num_hidden_layers", 1, layout::max_blocks);
    PartSpec part;
    part.kind = PartKind::dense;
    part.width = config.count("intermediate_size", 1, layout::max_dimension);
    part.activation = activation_named(config, "hidden_act");
    part.flags = part_flag::up_bias | part_flag::output_bias;
    for (uint32_t layer = 0; layer < layers; ++layer) {
        reader.add_attention_block(layer, true);
        const std::string from = layer_name(reader.prefix(), layer),
                          to = "blocks." + std::to_string(layer) + ".parts.0.";
        if (const auto module = find_fast_feedforward(*weights, from)) {
            add_fast_feedforward(reader, options, s.hidden, *module, to);
            reader.add_output_norm(layer);
            continue;
        }
        reader.add_part(part);
        reader.add(to + "up.weight", from + "intermediate.dense.weight", {part.width, s.hidden});
        reader.add(to + "up.bias", from + "intermediate.dense.bias", {part.width});
        reader.add(to + "down.weight", from + "output.dense.weight", {s.hidden, part.width});
        reader.add(to + "down.bias", from + "output.dense.bias", {s.hidden});
        reader.add_output_norm(layer);
    }
    read_classifier(reader, *import, config, options);
    read_sentence_transformers(*import, folder, options);
    if (!options.pooling.empty()) set_pooling(*import, options.pooling);
    const bool pooler_used = reader.weights().has("classifier.weight");
    reader.check_unused(!pooler_used);
    import_wordpiece(*import, folder, options.max_tokens, std::nullopt);
    return import;
}

}  // namespace espalier
