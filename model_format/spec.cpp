#include "model_format/spec.h"

#include <cmath>

#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {

uint64_t PartSpec::stored_neurons() const {
    switch (kind) {
        case PartKind::dense:
            return width;
        case PartKind::leaf_forest:
            return trees * leaves_per_tree() * leaf_width;
        case PartKind::neuron_forest:
            return trees * nodes_per_tree();
    }
    return 0;
}

uint64_t PartSpec::active_neurons() const {
    switch (kind) {
        case PartKind::dense:
            return width;
        case PartKind::leaf_forest:
            return uint64_t{trees} * leaf_width;
        case PartKind::neuron_forest:
            return uint64_t{trees} * (depth + 1);
    }
    return 0;
}

namespace {

// Collects "FILE: field: expected …, found …" in one place.
class Checker {
   public:
    explicit Checker(const char* source) : source_(source) {}

    void range(const char* where, uint64_t index, const char* field, uint64_t value, uint64_t low,
               uint64_t high) const {
        if (value >= low && value <= high) return;
        throw Error(Status::bad_model, "%s: %s %llu: %s: expected %llu to %llu, found %llu", source_, where,
                    static_cast<unsigned long long>(index), field, static_cast<unsigned long long>(low),
                    static_cast<unsigned long long>(high), static_cast<unsigned long long>(value));
    }
    void flags(const char* where, uint64_t index, uint32_t value, uint32_t known) const {
        if ((value & ~known) == 0) return;
        throw Error(Status::unsupported, "%s: %s %llu: flags: expected only bits of 0x%x, found 0x%x",
                    source_, where, static_cast<unsigned long long>(index), known, value);
    }
    void finite(const char* where, uint64_t index, const char* field, float value, bool positive) const {
        if (std::isfinite(value) && (!positive || value > 0)) return;
        throw Error(Status::bad_model, "%s: %s %llu: %s: expected a finite%s number, found %g", source_,
                    where, static_cast<unsigned long long>(index), field, positive ? " positive" : "",
                    static_cast<double>(value));
    }
    [[noreturn]] void fail(const char* where, uint64_t index, const char* what) const {
        throw Error(Status::bad_model, "%s: %s %llu: %s", source_, where,
                    static_cast<unsigned long long>(index), what);
    }

   private:
    const char* source_;
};

template <typename Enum>
uint64_t number(Enum value) {
    return static_cast<uint64_t>(value);
}

void check_rope_scaling(const ModelSpec& s, const Checker& check) {
    const auto& [factor, low, high, original] = s.rope_scaling;
    for (const float scaling : s.rope_scaling)
        check.finite("model", 0, "rope_scaling", scaling, false);
    const bool by_length = low > 0 && high > low && original > 0,
               alike = low == 0 && high == 0 && original == 0;
    if (factor > 0 ? !by_length && !alike : factor < 0 || !alike)
        check.fail(
            "model", 0,
            "rope_scaling: expected nothing, a factor above 0, or one with low below high and original "
            "positions");
}

void check_model(const ModelSpec& s, const Checker& check) {
    constexpr uint64_t top = layout::max_dimension;
    check.range("model", 0, "family", number(s.family), 1, 2);
    check.range("model", 0, "hidden", s.hidden, 1, top);
    check.range("model", 0, "vocabulary", s.vocabulary, 1, top);
    check.range("model", 0, "max_positions", s.max_positions, 1, top);
    check.range("model", 0, "token_types", s.token_types, 0, 256);
    check.range("model", 0, "norm", number(s.norm), 1, 2);
    check.range("model", 0, "norm_placement", number(s.norm_placement), 1, 2);
    check.range("model", 0, "positions", number(s.positions), 0, 3);
    check.range("model", 0, "rope_pairing", number(s.rope_pairing), 0, 1);
    check.range("model", 0, "pooling", number(s.pooling), 0, 3);
    check.finite("model", 0, "norm_epsilon", s.norm_epsilon, true);
    check.finite("model", 0, "position_scale", s.position_scale, false);
    check.finite("model", 0, "embedding_scale", s.embedding_scale, false);
    check.finite("model", 0, "logit_scale", s.logit_scale, false);
    check_rope_scaling(s, check);
    check.flags("model", 0, s.flags, model_flag::all);
    if (s.positions == Positions::rotary) {
        check.finite("model", 0, "rope_theta", s.rope_theta, true);
        check.range("model", 0, "rope_dimensions", s.rope_dimensions, 2, 65536);
        if (s.rope_dimensions % 2 != 0) check.fail("model", 0, "rope_dimensions: expected an even number");
    }
}

void check_tokenizer(const ModelSpec& s, const Checker& check) {
    const TokenizerSpec& t = s.tokenizer;
    check.range("tokenizer", 0, "kind", number(t.kind), 0, 4);
    check.flags("tokenizer", 0, t.flags, tokenizer_flag::all);
    if (t.kind == TokenizerKind::none) {
        // Contexts are as long as this by default: no more than the positions, which cost the file something.
        check.range("tokenizer", 0, "max_tokens", t.max_tokens, 0, s.max_positions);
        return;
    }
    check.range("tokenizer", 0, "max_tokens", t.max_tokens, 1, s.max_positions);
    check.range("tokenizer", 0, "max_word_characters", t.max_word_characters, 1, 1u << 20);
    const int32_t ids[] = {t.unknown, t.cls, t.sep, t.pad, t.mask, t.begin, t.end};
    for (const int32_t id : ids) {
        if (id < -1 || id >= static_cast<int64_t>(s.vocabulary))
            check.range("tokenizer", 0, "special token", static_cast<uint32_t>(id), 0, s.vocabulary - 1);
    }
    constexpr uint32_t byte_level = tokenizer_flag::gpt2_words | tokenizer_flag::llama3_words |
                                    tokenizer_flag::single_digits | tokenizer_flag::whole_words;
    constexpr uint32_t both_rules = tokenizer_flag::gpt2_words | tokenizer_flag::llama3_words;
    if (t.kind != TokenizerKind::byte_level_bpe ? (t.flags & byte_level) != 0
                                                : (t.flags & both_rules) == both_rules)
        check.fail("tokenizer", 0, "flags: expected one rule for words at most, of a byte-level tokenizer");
    if (!merges_pieces(t.kind) && (t.flags & tokenizer_flag::added_tokens) != 0)
        check.fail("tokenizer", 0, "flags: added_tokens: expected a tokenizer that merges, found another");
    if (t.kind != TokenizerKind::byte_fallback_bpe && (t.flags & tokenizer_flag::single_spaces) != 0)
        check.fail("tokenizer", 0, "flags: single_spaces: expected BPE with byte fallback, found another");
    if (t.kind == TokenizerKind::wordpiece) {
        if (t.unknown < 0 || t.cls < 0 || t.sep < 0)
            check.fail("tokenizer", 0,
                       "wordpiece needs the tokens [UNK], [CLS] and [SEP]; found none of that id");
        check.range("tokenizer", 0, "max_tokens", t.max_tokens, 3, s.max_positions);
    }
}

void check_block(const ModelSpec& s, uint64_t index, const Checker& check) {
    const BlockSpec& b = s.blocks[index];
    check.flags("block", index, b.flags, block_flag::all);
    if (b.has(block_flag::parallel) && index == 0)
        check.fail("block", index, "flags: parallel: expected a block in front, found none");
    if (b.has(block_flag::parallel) && s.norm_placement != NormPlacement::pre)
        check.fail("block", index,
                   "flags: parallel: expected norms in front of sublayers, found them behind");
    check.range("block", index, "part_count", b.part_count, 0, s.parts.size() - b.first_part);
    if (!b.has(block_flag::attention)) return;
    check.range("block", index, "heads", b.heads, 1, 65536);
    check.range("block", index, "kv_heads", b.kv_heads, 1, b.heads);
    check.range("block", index, "head_dimension", b.head_dimension, 1, 65536);
    check.range("block", index, "query width", b.qkv_width(), 1, layout::max_dimension);
    check.finite("block", index, "attention_scale", b.attention_scale, true);
    if (b.attention_scale < layout::least_attention_scale)
        check.fail("block", index, "attention_scale: expected at least 1e-30");
    if (s.positions == Positions::rotary)
        check.range("block", index, "head_dimension", b.head_dimension, s.rope_dimensions, 65536);
    if (b.heads % b.kv_heads != 0) check.fail("block", index, "heads: expected a multiple of kv_heads");
}

void check_part(const ModelSpec& s, uint64_t index, const Checker& check) {
    const PartSpec& p = s.parts[index];
    check.range("part", index, "kind", number(p.kind), 1, 3);
    check.range("part", index, "activation", number(p.activation), 0, 5);
    check.range("part", index, "tie", number(p.tie), 0, 1);
    check.range("part", index, "routes_on", number(p.routes_on), 0, 1);
    check.flags("part", index, p.flags, part_flag::all);
    if (p.routes_on == RoutesOn::gate && (p.kind != PartKind::neuron_forest || !p.has(part_flag::gated)))
        check.fail("part", index, "routes_on: expected the gate of a gated neuron forest, found no gate");
    if (p.has(part_flag::gate_bias) && (p.kind != PartKind::dense || !p.has(part_flag::gated)))
        check.fail("part", index, "flags: gate_bias: expected a gated dense part, found another");
    if (p.kind == PartKind::dense) {
        check.range("part", index, "width", p.width, 1, layout::max_dimension);
        return;
    }
    check.range("part", index, "trees", p.trees, 1, 1u << 16);
    check.range("part", index, "depth", p.depth, 0, layout::max_depth);
    check.range("part", index, "leaf_width", p.leaf_width, 0, 1u << 20);
    // Such a part would hold no tensor, and yet ask for memory by the tree and token.
    if (p.kind == PartKind::leaf_forest && p.leaf_width == 0 && !p.has(part_flag::output_bias))
        check.fail("part", index, "leaf_width: expected neurons or an output bias, found neither");
    // All rows of one tensor: trees * 2^24 * leaf_width < 2^60 cannot wrap; times hidden is checked later.
    check.range("part", index, "stored neurons", p.stored_neurons(), 0, uint64_t{1} << 32);
    check.range("part", index, "nodes of all trees", p.trees * p.nodes_per_tree(), 0, uint64_t{1} << 30);
}

void check_head(const ModelSpec& s, uint64_t index, const Checker& check) {
    const HeadSpec& h = s.heads[index];
    check.range("head", index, "kind", number(h.kind), 1, 2);
    check.range("head", index, "activation", number(h.activation), 0, 5);
    check.range("head", index, "pooling", number(h.pooling), 1, 3);
    check.flags("head", index, h.flags, head_flag::all);
    check.range("head", index, "dense_width", h.dense_width, 0, layout::max_dimension);
    check.range("head", index, "outputs", h.outputs, 1, layout::max_labels);
    if (h.label_count != 0 && h.label_count != h.outputs)
        check.range("head", index, "label_count", h.label_count, h.outputs, h.outputs);
    for (uint64_t other = 0; other < index; ++other) {
        if (s.heads[other].name == h.name)
            check.fail("head", index, "name: a head of that name exists already");
    }
}

}  // namespace

void check_spec(const ModelSpec& spec, const char* source) {
    const Checker check(source);
    check_model(spec, check);
    check_tokenizer(spec, check);
    check.range("model", 0, "blocks", spec.blocks.size(), 0, layout::max_blocks);
    check.range("model", 0, "parts", spec.parts.size(), 0, layout::max_parts);
    check.range("model", 0, "heads", spec.heads.size(), 0, layout::max_heads);
    check.range("model", 0, "labels", spec.labels.size(), 0, layout::max_labels);
    uint64_t next_part = 0;
    for (uint64_t i = 0; i < spec.blocks.size(); ++i) {
        if (spec.blocks[i].first_part != next_part)
            check.range("block", i, "first_part", spec.blocks[i].first_part, next_part, next_part);
        check_block(spec, i, check);
        next_part += spec.blocks[i].part_count;
    }
    if (next_part != spec.parts.size())
        check.range("model", 0, "parts used by blocks", next_part, spec.parts.size(), spec.parts.size());
    for (uint64_t i = 0; i < spec.parts.size(); ++i)
        check_part(spec, i, check);
    uint64_t next_label = 0;
    for (uint64_t i = 0; i < spec.heads.size(); ++i) {
        if (spec.heads[i].first_label != next_label)
            check.range("head", i, "first_label", spec.heads[i].first_label, next_label, next_label);
        check_head(spec, i, check);
        next_label += spec.heads[i].label_count;
    }
    if (next_label != spec.labels.size())
        check.range("model", 0, "labels used by heads", next_label, spec.labels.size(), spec.labels.size());
}

const char* name_of(Family family) {
    return family == Family::encoder ? "encoder" : "decoder";
}

const char* name_of(Norm norm) {
    return norm == Norm::layer_norm ? "layer_norm" : "rms_norm";
}

const char* name_of(NormPlacement placement) {
    return placement == NormPlacement::post ? "post" : "pre";
}

const char* name_of(Positions positions) {
    constexpr const char* names[] = {"none", "learned", "sinusoidal", "rotary"};
    return names[number(positions)];
}

const char* name_of(Pooling pooling) {
    constexpr const char* names[] = {"none", "cls", "mean", "last"};
    return names[number(pooling)];
}

const char* name_of(PartKind kind) {
    constexpr const char* names[] = {"none", "dense", "leaf_forest", "neuron_forest"};
    return names[number(kind)];
}

const char* name_of(HeadKind kind) {
    return kind == HeadKind::classifier ? "classifier" : "regression";
}

const char* name_of(TokenizerKind kind) {
    constexpr const char* names[] = {"none", "wordpiece", "byte_level_bpe", "byte_fallback_bpe", "unigram"};
    return names[number(kind)];
}

const char* name_of(TensorLayout layout) {
    constexpr const char* names[] = {"row_major", "rows_interleaved", "transposed", "packed", "rotated"};
    return names[number(layout)];
}

}  // namespace espalier
