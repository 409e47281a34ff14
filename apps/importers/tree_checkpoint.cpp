// Tree checkpoints: config.json lists the parts of every layer, model.safetensors holds their rows. Tensors
// as training/ exports them (layout: docs/checkpoints.md).
#include "apps/importers/bert.h"
#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

PartSpec read_part(const JsonFile& entry, Activation activation) {
    PartSpec part;
    part.activation = activation;
    part.flags = part_flag::up_bias | part_flag::output_bias;
    const std::string kind = entry.text("kind");
    if (kind == "dense") {
        part.kind = PartKind::dense;
        part.width = entry.count("width", 1, layout::max_dimension);
        return part;
    }
    if (kind != "leaf_forest" && kind != "neuron_forest")
        throw Error(Status::unsupported, "%s: kind: expected dense, leaf_forest or neuron_forest, found %s",
                    entry.name().c_str(), kind.c_str());
    part.kind = kind == "leaf_forest" ? PartKind::leaf_forest : PartKind::neuron_forest;
    part.trees = entry.count("trees", 1, 1u << 16);
    part.depth = entry.count("depth", 0, layout::max_depth);
    if (part.kind == PartKind::leaf_forest) part.leaf_width = entry.count("leaf_width", 0, 1u << 20);
    // These checkpoints send a token right only when its test value is above zero.
    part.tie = TieRule::zero_goes_left;
    return part;
}

void add_part_tensors(BertReader& reader, const PartSpec& part, uint64_t hidden, const std::string& from,
                      const std::string& to) {
    const uint64_t h = hidden, w = part.width, k = part.trees;
    if (part.kind == PartKind::dense) {
        reader.add(to + "up.weight", from + "up.weight", {w, h});
        reader.add(to + "up.bias", from + "up.bias", {w});
        reader.add(to + "down.weight", from + "down.weight", {h, w});
        reader.add(to + "down.bias", from + "down.bias", {h});
        return;
    }
    const uint64_t nodes = part.nodes_per_tree();
    if (part.kind == PartKind::neuron_forest) {
        reader.add(to + "in.weight", from + "in.weight", {k * nodes, h}, {k, nodes, h});
        reader.add(to + "in.bias", from + "in.bias", {k * nodes}, {k, nodes});
        reader.add(to + "out.weight", from + "out.weight", {k * nodes, h}, {k, nodes, h});
        reader.add(to + "out.bias", from + "out.bias", {h});
        return;
    }
    const uint64_t leaves = part.leaves_per_tree(), l = part.leaf_width;
    if (nodes > 0) {
        reader.add(to + "node.weight", from + "node.weight", {k * nodes, h}, {k, nodes, h});
        reader.add(to + "node.threshold", from + "node.threshold", {k * nodes}, {k, nodes});
    }
    if (l > 0) {
        reader.add(to + "leaf.up.weight", from + "leaf.up.weight", {k * leaves, l, h}, {k, leaves, l, h});
        reader.add(to + "leaf.up.bias", from + "leaf.up.bias", {k * leaves, l}, {k, leaves, l});
        reader.add(to + "leaf.down.weight", from + "leaf.down.weight", {k * leaves, l, h}, {k, leaves, l, h});
    }
    reader.add(to + "leaf.bias", from + "leaf.down.bias", {k * leaves, h}, {k, leaves, h});
}

// `from`: where the names of its tensors start.
void add_head(BertReader& reader, Import& import, const JsonFile& entry, const std::string& name,
              const std::string& from) {
    ModelSpec& s = import.spec;
    HeadSpec head;
    head.name = import.keep(name);
    const std::string kind = entry.text("kind"), activation = entry.text_or("activation", "tanh");
    if (kind != "classifier" && kind != "regression")
        throw Error(Status::unsupported, "%s: kind: expected classifier or regression, found %s",
                    entry.name().c_str(), kind.c_str());
    if (activation != "tanh")
        throw Error(Status::unsupported, "%s: activation: expected tanh, found %s", entry.name().c_str(),
                    activation.c_str());
    head.kind = kind == "regression" ? HeadKind::regression : HeadKind::classifier;
    head.activation = Activation::tanh;
    head.flags = head_flag::dense_bias | head_flag::output_bias;
    head.pooling = s.pooling;
    head.dense_width = s.hidden;
    head.outputs = 1;
    head.first_label = static_cast<uint32_t>(s.labels.size());
    if (head.kind == HeadKind::classifier) {
        const auto& labels = entry.array("labels");
        const size_t most = layout::max_labels - s.labels.size();  // the file's limit is one for all heads
        if (labels.empty() || labels.size() > most)
            throw Error(Status::bad_model, "%s: labels: expected 1 to %zu, found %zu", entry.name().c_str(),
                        most, labels.size());
        for (const auto& label : labels) {
            if (!label.is_string())
                throw Error(Status::bad_model, "%s: labels: expected strings, found %s", entry.name().c_str(),
                            label.type_name());
            s.labels.push_back(import.keep(label.get<std::string>()));
        }
        head.outputs = head.label_count = static_cast<uint32_t>(labels.size());
    }
    const std::string to = "heads." + std::to_string(s.heads.size()) + ".";
    s.heads.push_back(head);
    const uint64_t h = s.hidden, outputs = head.outputs;
    reader.add(to + "dense.weight", from + "dense.weight", {h, h});
    reader.add(to + "dense.bias", from + "dense.bias", {h});
    reader.add(to + "out.weight", from + "out.weight", {outputs, h});
    reader.add(to + "out.bias", from + "out.bias", {outputs});
}

void read_heads(BertReader& reader, Import& import, const JsonFile& config, const ConvertOptions& options) {
    if (config.has("head") && config.has("heads"))
        throw Error(Status::bad_model, "%s: head, heads: expected one of the two, found both",
                    config.name().c_str());
    if (config.has("head")) {
        const JsonFile entry(config.name() + ": head", config.value()["head"]);
        const std::string name = options.head_name.empty() ? "classifier" : options.head_name;
        add_head(reader, import, entry, name, "classifier.");
        return;
    }
    if (!config.has("heads")) return;
    if (!options.head_name.empty())
        throw Error(Status::invalid_argument,
                    "--head-name: expected a checkpoint with one head, found heads with names in %s",
                    config.name().c_str());
    const auto& entries = config.array("heads");
    if (entries.empty() || entries.size() > layout::max_heads)
        throw Error(Status::bad_model, "%s: heads: expected 1 to %u, found %zu", config.name().c_str(),
                    layout::max_heads, entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
        const JsonFile entry(config.name() + ": heads[" + std::to_string(i) + "]", entries[i]);
        const std::string name = entry.text("name");
        if (name.empty())
            throw Error(Status::bad_model, "%s: name: expected one character or more, found none",
                        entry.name().c_str());
        for (const HeadSpec& other : import.spec.heads) {
            if (other.name == name)
                throw Error(Status::bad_model, "%s: name: expected one that no other head has, found %.60s",
                            entry.name().c_str(), name.c_str());
        }
        add_head(reader, import, entry, name, "heads." + name + ".");
    }
}

}  // namespace

std::unique_ptr<Import> import_tree_checkpoint(const std::string& folder, const JsonFile& config,
                                               const ConvertOptions& options) {
    const std::string architecture = config.text_or("architecture", "bert");
    if (architecture != "bert")
        throw Error(Status::unsupported, "%s: architecture: expected bert, found %s", config.name().c_str(),
                    architecture.c_str());
    auto import = std::make_unique<Import>();
    auto weights = std::make_shared<Weights>(folder);
    BertReader reader(*import, weights, config);
    reader.read_sizes();
    ModelSpec& s = import->spec;

    // Embedding tables and vocabulary: in the checkpoint, or from --base.
    const bool own_tables = weights->has(reader.prefix() + "embeddings.word_embeddings.weight");
    if (!own_tables && options.base.empty())
        throw Error(Status::bad_model,
                    "%s: tensor embeddings.word_embeddings.weight: missing (--base DIR names a checkpoint to "
                    "take the embeddings from)",
                    weights->path().c_str());
    auto tables = own_tables ? weights : std::make_shared<Weights>(options.base);
    reader.add_embeddings(tables, !own_tables);
    if (!own_tables) import->files.push_back(tables);
    reader.add_embedding_norm();

    const uint32_t layers = config.count("num_hidden_layers", 1, layout::max_blocks);
    const Activation activation = activation_named(config, "hidden_act");
    const auto& ffn = config.array("ffn");
    const bool lists_attention = config.has("attention");
    if (ffn.size() != layers || (lists_attention && config.array("attention").size() != layers))
        throw Error(Status::bad_model,
                    "%s: ffn, attention: expected one entry for each of the %u layers, found %zu and %zu",
                    config.name().c_str(), layers, ffn.size(),
                    lists_attention ? config.array("attention").size() : layers);
    for (uint32_t layer = 0; layer < layers; ++layer) {
        const auto attention = lists_attention ? config.array("attention")[layer] : nlohmann::json(true);
        if (!attention.is_boolean() || !ffn[layer].is_array())
            throw Error(Status::bad_model,
                        "%s: layer %u: expected true or false in attention and an array of parts in ffn",
                        config.name().c_str(), layer);
        reader.add_attention_block(layer, attention.get<bool>());
        for (size_t j = 0; j < ffn[layer].size(); ++j) {
            const std::string where =
                config.name() + ": ffn[" + std::to_string(layer) + "][" + std::to_string(j) + "]";
            const PartSpec part = read_part(JsonFile(where, ffn[layer][j]), activation);
            reader.add_part(part);
            const auto joined = [&](std::string path, const char* list) {
                return path.append(std::to_string(layer)).append(list).append(std::to_string(j)).append(".");
            };
            add_part_tensors(reader, part, s.hidden, joined(reader.prefix() + "encoder.layer.", ".ffn."),
                             joined("blocks.", ".parts."));
        }
        if (!ffn[layer].empty()) reader.add_output_norm(layer);
    }
    s.pooling = pooling_named(config.text_or("pooling", "mean"));
    read_heads(reader, *import, config, options);
    // Without a head the product is a vector for comparing.
    if (config.flag_or("normalise", s.heads.empty())) s.flags |= model_flag::normalise_output;
    if (!options.pooling.empty()) set_pooling(*import, options.pooling);
    reader.check_unused(s.pooling == Pooling::mean);
    const bool own_vocabulary = JsonFile::exists(folder + "/vocab.txt") || options.base.empty();
    const std::optional<bool> lowercase =
        config.has("do_lower_case") ? std::optional(config.flag("do_lower_case")) : std::nullopt;
    import_wordpiece(*import, own_vocabulary ? folder : options.base, options.max_tokens, lowercase);
    return import;
}

}  // namespace espalier
