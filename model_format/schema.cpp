#include "model_format/schema.h"

#include <cstdarg>
#include <cstdio>

namespace espalier {

TensorName tensor_name(const char* format, ...) {
    TensorName name;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(name.text, sizeof(name.text), format, arguments);
    va_end(arguments);
    return name;
}

TensorName part_tensor(uint64_t block, uint64_t part, const char* suffix) {
    return tensor_name("blocks.%llu.parts.%llu.%s", static_cast<unsigned long long>(block),
                       static_cast<unsigned long long>(part), suffix);
}

namespace {

class Collector {
   public:
    explicit Collector(std::pmr::vector<TensorNeed>& needs) : needs_(needs) {}

    void add(const TensorName& name, TensorRole role, std::initializer_list<uint64_t> dimensions) {
        TensorNeed need{name, role, static_cast<uint32_t>(dimensions.size()), {1, 1, 1, 1}, Rotation::none};
        size_t axis = 0;
        for (const uint64_t dimension : dimensions)
            need.dimensions[axis++] = dimension;
        needs_.push_back(need);
    }
    void weight(const TensorName& name, std::initializer_list<uint64_t> dimensions,
                Rotation rotation = Rotation::none) {
        add(name, TensorRole::weight, dimensions);
        needs_.back().rotation = rotation;
    }
    void vector(const TensorName& name, std::initializer_list<uint64_t> dimensions) {
        add(name, TensorRole::vector, dimensions);
    }

   private:
    std::pmr::vector<TensorNeed>& needs_;
};

unsigned long long wide(uint64_t value) {
    return value;
}

void add_norm(Collector& out, const ModelSpec& spec, const char* prefix) {
    out.vector(tensor_name("%s.weight", prefix), {spec.hidden});
    if (spec.norm == Norm::layer_norm && !spec.has(model_flag::norm_without_bias))
        out.vector(tensor_name("%s.bias", prefix), {spec.hidden});
}

void add_embeddings(Collector& out, const ModelSpec& spec) {
    out.weight(tensor_name("embeddings.word"), {spec.vocabulary, spec.hidden});
    if (spec.positions == Positions::learned)
        out.weight(tensor_name("embeddings.position"), {spec.max_positions, spec.hidden});
    if (spec.token_types > 0) out.weight(tensor_name("embeddings.type"), {spec.token_types, spec.hidden});
    if (spec.has(model_flag::embedding_norm)) add_norm(out, spec, "embeddings.norm");
}

void add_attention(Collector& out, const ModelSpec& spec, uint64_t index) {
    const BlockSpec& block = spec.blocks[index];
    if (!block.has(block_flag::attention)) return;
    const auto b = wide(index);
    out.weight(tensor_name("blocks.%llu.attention.qkv.weight", b), {block.qkv_width(), spec.hidden},
               Rotation::last);
    if (block.has(block_flag::qkv_bias))
        out.vector(tensor_name("blocks.%llu.attention.qkv.bias", b), {block.qkv_width()});
    out.weight(tensor_name("blocks.%llu.attention.out.weight", b), {spec.hidden, block.query_width()},
               Rotation::last);
    if (block.has(block_flag::output_bias))
        out.vector(tensor_name("blocks.%llu.attention.out.bias", b), {spec.hidden});
    add_norm(out, spec, tensor_name("blocks.%llu.attention.norm", b).text);
}

void add_dense(Collector& out, const ModelSpec& spec, const PartSpec& part, uint64_t b, uint64_t p) {
    out.weight(part_tensor(b, p, "up.weight"), {part.width, spec.hidden}, Rotation::last);
    if (part.has(part_flag::gated))
        out.weight(part_tensor(b, p, "gate.weight"), {part.width, spec.hidden}, Rotation::last);
    if (part.has(part_flag::up_bias)) out.vector(part_tensor(b, p, "up.bias"), {part.width});
    if (part.has(part_flag::gate_bias)) out.vector(part_tensor(b, p, "gate.bias"), {part.width});
    out.weight(part_tensor(b, p, "down.weight"), {spec.hidden, part.width}, Rotation::last);
    if (part.has(part_flag::output_bias)) out.vector(part_tensor(b, p, "down.bias"), {spec.hidden});
}

void add_leaf_forest(Collector& out, const ModelSpec& spec, const PartSpec& part, uint64_t b, uint64_t p) {
    const uint64_t trees = part.trees, nodes = part.nodes_per_tree(), leaves = part.leaves_per_tree();
    if (nodes > 0) {
        out.weight(part_tensor(b, p, "node.weight"), {trees, nodes, spec.hidden});
        out.vector(part_tensor(b, p, "node.threshold"), {trees, nodes});
    }
    if (part.leaf_width > 0) {
        const auto neurons = {trees, leaves, uint64_t{part.leaf_width}, uint64_t{spec.hidden}};
        out.weight(part_tensor(b, p, "leaf.up.weight"), neurons, Rotation::last);
        if (part.has(part_flag::gated))
            out.weight(part_tensor(b, p, "leaf.gate.weight"), neurons, Rotation::last);
        if (part.has(part_flag::up_bias))
            out.vector(part_tensor(b, p, "leaf.up.bias"), {trees, leaves, part.leaf_width});
        out.weight(part_tensor(b, p, "leaf.down.weight"), neurons, Rotation::before_last);
    }
    if (part.has(part_flag::output_bias))
        out.weight(part_tensor(b, p, "leaf.bias"), {trees, leaves, spec.hidden});
}

void add_neuron_forest(Collector& out, const ModelSpec& spec, const PartSpec& part, uint64_t b, uint64_t p) {
    const uint64_t trees = part.trees, nodes = part.nodes_per_tree();
    out.weight(part_tensor(b, p, "in.weight"), {trees, nodes, spec.hidden});
    if (part.has(part_flag::gated)) out.weight(part_tensor(b, p, "gate.weight"), {trees, nodes, spec.hidden});
    if (part.has(part_flag::up_bias)) out.vector(part_tensor(b, p, "in.bias"), {trees, nodes});
    out.weight(part_tensor(b, p, "out.weight"), {trees, nodes, spec.hidden});
    if (part.has(part_flag::output_bias)) out.vector(part_tensor(b, p, "out.bias"), {spec.hidden});
}

void add_parts(Collector& out, const ModelSpec& spec, uint64_t index) {
    const auto parts = spec.parts_of(spec.blocks[index]);
    if (parts.empty()) return;
    for (uint64_t p = 0; p < parts.size(); ++p) {
        switch (parts[p].kind) {
            case PartKind::dense:
                add_dense(out, spec, parts[p], index, p);
                break;
            case PartKind::leaf_forest:
                add_leaf_forest(out, spec, parts[p], index, p);
                break;
            case PartKind::neuron_forest:
                add_neuron_forest(out, spec, parts[p], index, p);
                break;
        }
    }
}

void add_heads(Collector& out, const ModelSpec& spec) {
    for (uint64_t h = 0; h < spec.heads.size(); ++h) {
        const HeadSpec& head = spec.heads[h];
        const auto n = wide(h);
        if (head.dense_width > 0) {
            out.weight(tensor_name("heads.%llu.dense.weight", n), {head.dense_width, spec.hidden});
            if (head.has(head_flag::dense_bias))
                out.vector(tensor_name("heads.%llu.dense.bias", n), {head.dense_width});
        }
        out.weight(tensor_name("heads.%llu.out.weight", n),
                   {head.outputs, head.dense_width > 0 ? head.dense_width : spec.hidden});
        if (head.has(head_flag::output_bias))
            out.vector(tensor_name("heads.%llu.out.bias", n), {head.outputs});
    }
}

}  // namespace

std::pmr::vector<TensorNeed> tensors_of(const ModelSpec& spec, std::pmr::memory_resource* memory) {
    std::pmr::vector<TensorNeed> needs(memory);
    needs.reserve(16 + spec.blocks.size() * 8 + spec.parts.size() * 8 + spec.heads.size() * 4);
    Collector out(needs);
    add_embeddings(out, spec);
    for (uint64_t b = 0; b < spec.blocks.size(); ++b) {
        add_attention(out, spec, b);
        add_parts(out, spec, b);
        // A block without attention, or without parts, lacks that whole sublayer, its norm included.
        if (spec.blocks[b].part_count > 0)
            add_norm(out, spec, tensor_name("blocks.%llu.ffn.norm", wide(b)).text);
    }
    if (spec.has(model_flag::final_norm)) add_norm(out, spec, "final_norm");
    add_heads(out, spec);
    if (spec.family == Family::decoder && !spec.has(model_flag::tied_output))
        out.weight(tensor_name("output.weight"), {spec.vocabulary, spec.hidden});
    if (spec.tokenizer.kind != TokenizerKind::none) {
        out.add(tensor_name("tokenizer.offsets"), TensorRole::vocabulary, {uint64_t{spec.vocabulary} + 1});
        out.add(tensor_name("tokenizer.bytes"), TensorRole::vocabulary, {0});
        if (merges_pieces(spec.tokenizer.kind))
            out.add(tensor_name("tokenizer.merges"), TensorRole::vocabulary, {0, 4});
        if ((spec.tokenizer.flags & tokenizer_flag::added_tokens) != 0)
            out.add(tensor_name("tokenizer.added"), TensorRole::vocabulary, {0, 2});
    }
    return needs;
}

bool shape_fits(const TensorNeed& need, std::span<const uint64_t> dimensions) {
    if (need.rank != dimensions.size()) return false;
    for (size_t axis = 0; axis < dimensions.size(); ++axis) {
        const bool any = need.dimensions[axis] == 0;
        if (any ? dimensions[axis] == 0 : dimensions[axis] != need.dimensions[axis]) return false;
    }
    return true;
}

bool layout_fits(const TensorNeed& need, TensorLayout layout) {
    if (layout == TensorLayout::row_major) return true;
    if (need.rotation == Rotation::none) return false;
    return layout == TensorLayout::rotated || (layout == TensorLayout::packed && may_be_packed(need));
}

bool may_be_packed(const TensorNeed& need) {
    if (need.rotation == Rotation::none || need.rank < 2) return false;
    const uint64_t before_last = need.dimensions[need.rank - 2], last = need.dimensions[need.rank - 1];
    const bool sums_last = need.rotation == Rotation::last;
    // A word's values, and the widest vector of words.
    return (sums_last ? last : before_last) % packed_values == 0 &&
           (sums_last ? before_last : last) % 16 == 0;
}

bool type_fits(TensorRole role, TensorType type) {
    switch (role) {
        case TensorRole::weight:
            return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16 ||
                   type == TensorType::s8;
        case TensorRole::vector:
            return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16;
        case TensorRole::vocabulary:
            return type == TensorType::u8 || type == TensorType::u32;
    }
    return false;
}

}  // namespace espalier
