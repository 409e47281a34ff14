// A decoder small enough to follow by hand, and what it answers, in double precision, from the definitions.
#pragma once

#include <array>
#include <cmath>
#include <cstring>

#include "runtime/context.h"
#include "tests/part_reference.h"
#include "tests/tiny_model.h"

namespace espalier::test {

// Pieces that merge "ab", "abc", "bc" and " a", with byte tokens for "x" alone.
inline std::vector<std::string> tiny_pieces() {
    return {"<unk>", "<s>", "</s>", "<0x78>", " ", "a", "b", "c", "ab", "bc", "abc", " a"};
}
inline std::vector<uint32_t> tiny_merges() {
    return {5, 6, 8, 1, 6, 7, 9, 0, 5, 9, 10, 2, 8, 7, 10, 2, 4, 5, 11, 3};
}

struct TinyDecoder {
    uint32_t heads = 4, kv_heads = 2, head_dimension = 6, hidden = 16;
    RopePairing pairing = RopePairing::halves;
    bool tied = false;
    std::array<float, 4> rope_scaling{};
    bool gated_trees = false;  // two blocks more, the second beside the first

    // Three blocks: gated; without attention and with two parts; with attention alone.
    ModelSpec spec() const {
        ModelSpec s = bare_spec();
        s.family = Family::decoder;
        s.hidden = hidden;
        s.vocabulary = static_cast<uint32_t>(tiny_pieces().size());
        s.max_positions = 300;
        s.token_types = 0;
        s.norm = Norm::rms_norm;
        s.norm_placement = NormPlacement::pre;
        s.norm_epsilon = 1e-5F;
        s.flags = model_flag::final_norm | (tied ? model_flag::tied_output : 0);
        s.positions = Positions::rotary;
        s.rope_theta = 100;
        s.rope_dimensions = head_dimension;
        s.rope_scaling = rope_scaling;
        s.rope_pairing = pairing;
        s.pooling = Pooling::none;
        s.tokenizer = {};
        s.tokenizer.kind = TokenizerKind::byte_fallback_bpe;
        s.tokenizer.flags = tokenizer_flag::add_begin | tokenizer_flag::prefix_space;
        s.tokenizer.max_tokens = s.max_positions;
        s.tokenizer.unknown = 0;
        s.tokenizer.begin = 1;
        s.tokenizer.end = 2;
        PartSpec gated;
        gated.activation = Activation::silu;
        gated.flags = part_flag::gated;
        gated.width = 20;
        PartSpec plain = dense_part(9);
        plain.activation = Activation::relu;
        const uint32_t attention = block_flag::attention | block_flag::causal;
        add_block(s, attention, {gated});
        add_block(s, 0, {gated, plain});
        add_block(s, attention | block_flag::qkv_bias, {});
        if (gated_trees) add_gated_trees(s, attention);
        for (BlockSpec& block : s.blocks) {
            if (!block.has(block_flag::attention)) continue;
            block.heads = heads;
            block.kv_heads = kv_heads;
            block.head_dimension = head_dimension;
            block.attention_scale = 1.0F / std::sqrt(static_cast<float>(head_dimension));
        }
        return s;
    }

    static void add_gated_trees(ModelSpec& s, uint32_t attention) {
        PartSpec leaf = forest_part(PartKind::leaf_forest, 2, 2, 5);
        leaf.flags |= part_flag::gated;
        leaf.activation = Activation::silu;
        PartSpec neuron = leaf;
        neuron.kind = PartKind::neuron_forest;
        neuron.leaf_width = 0;
        neuron.routes_on = RoutesOn::gate;
        add_block(s, attention, {leaf});
        add_block(s, attention | block_flag::parallel, {neuron, leaf});
    }

    AlignedBytes bytes() const { return bytes_of(spec()); }

    // A decoder of this vocabulary; its matrices times `scale`.
    static AlignedBytes bytes_of(const ModelSpec& s, float scale = 1) {
        auto tensors = random_tensors(s, only(TensorType::f32), 11);
        if (scale != 1) scale_matrices(tensors, scale);
        std::erase_if(tensors, [](const TensorSource& t) { return t.name.starts_with("tokenizer."); });
        add_vocabulary(tensors, tiny_pieces());
        tensors.push_back(
            tensor_of("tokenizer.merges", TensorType::u32, {tiny_merges().size() / 4, 4}, tiny_merges()));
        return model_to_memory(s, std::move(tensors));
    }
};

// Logits of every token, [tokens, vocabulary]: the whole sequence at once, no cache.
class DecoderReference {
   public:
    explicit DecoderReference(const ModelFile& file) : file_(file), s_(file.spec()), parts_(file) {}

    using Row = PartReference::Row;
    using Rows = std::vector<Row>;

    Rows logits(const std::vector<int32_t>& ids) const {
        Rows x;
        for (const int32_t id : ids)
            x.push_back(parts_.row("embeddings.word", static_cast<size_t>(id)));
        Rows before;  // what the blocks that run beside each other read
        for (size_t b = 0; b < s_.blocks.size(); ++b) {
            if (!s_.blocks[b].has(block_flag::parallel)) before = x;
            Rows after = before;
            block(b, after);
            for (size_t t = 0; t < x.size(); ++t) {
                add(x[t], after[t], 1);
                add(x[t], before[t], -1);
            }
        }
        for (auto& row : x)
            row = linear(s_.has(model_flag::tied_output) ? "embeddings.word" : "output.weight", "",
                         parts_.norm(row, "final_norm"));
        return x;
    }

    double least_margin() const { return parts_.least_margin(); }

   private:
    static void add(Row& y, const Row& x, double factor) { PartReference::add(y, x, factor); }

    void block(size_t b, Rows& x) const {
        const std::string name = "blocks." + std::to_string(b) + ".";
        if (s_.blocks[b].has(block_flag::attention)) attend(b, name + "attention.", x);
        for (Row& row : x) {
            if (s_.blocks[b].part_count == 0) break;
            const Row normed = parts_.norm(row, name + "ffn.norm");
            for (size_t p = 0; p < s_.blocks[b].part_count; ++p)
                add(row, parts_.part(b, p, normed), 1);
        }
    }
    Row linear(const std::string& weight, const std::string& bias, const Row& x) const {
        Row y(file_.at(weight).rows());
        for (size_t o = 0; o < y.size(); ++o) {
            const Row w = parts_.row(weight, o);
            for (size_t i = 0; i < x.size(); ++i)
                y[o] += w[i] * x[i];
        }
        if (!bias.empty()) add(y, parts_.row(bias, 0), 1);
        return y;
    }
    // Scaled as Llama 3.1's reference code has it (apply_scaling of llama-models).
    double frequency(double plain) const {
        const double factor = s_.rope_scaling[0], low = s_.rope_scaling[1], high = s_.rope_scaling[2],
                     window = s_.rope_scaling[3], wavelength = 2 * std::acos(-1.0) / plain;
        if (factor == 0) return plain;
        if (window == 0) return plain / factor;
        if (wavelength < window / high) return plain;
        if (wavelength > window / low) return plain / factor;
        const double smooth = (window / wavelength - low) / (high - low);
        return (1 - smooth) * plain / factor + smooth * plain;
    }
    // The pair (a, b) turned by position * theta^(-2 i / n).
    void turn(Row& x, size_t head, size_t position) const {
        const size_t n = s_.rope_dimensions;
        for (size_t i = 0; i < n / 2; ++i) {
            const bool halves = s_.rope_pairing == RopePairing::halves;
            double& a = x[head * n + (halves ? i : 2 * i)];
            double& b = x[head * n + (halves ? i + n / 2 : 2 * i + 1)];
            const double angle =
                static_cast<double>(position) *
                frequency(std::pow(s_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(n)));
            const double turned = a * std::cos(angle) - b * std::sin(angle);
            b = a * std::sin(angle) + b * std::cos(angle);
            a = turned;
        }
    }
    void attend(size_t b, const std::string& name, std::vector<Row>& x) const {
        const BlockSpec& block = s_.blocks[b];
        const size_t d = block.head_dimension, heads = block.heads, kv_heads = block.kv_heads;
        std::vector<Row> qkv;
        for (size_t t = 0; t < x.size(); ++t) {
            qkv.push_back(linear(name + "qkv.weight",
                                 block.has(block_flag::qkv_bias) ? name + "qkv.bias" : "",
                                 parts_.norm(x[t], name + "norm")));
            for (size_t h = 0; h < heads + kv_heads; ++h)
                turn(qkv.back(), h, t);
        }
        for (size_t t = 0; t < x.size(); ++t) {
            Row mix(heads * d);
            for (size_t h = 0; h < heads; ++h) {
                const size_t key = heads + h / (heads / kv_heads), value = key + kv_heads;
                Row scores(t + 1);
                double sum = 0;
                for (size_t j = 0; j <= t; ++j) {
                    for (size_t c = 0; c < d; ++c)
                        scores[j] += qkv[t][h * d + c] * qkv[j][key * d + c];
                    sum += scores[j] = std::exp(scores[j] / std::sqrt(static_cast<double>(d)));
                }
                for (size_t j = 0; j <= t; ++j) {
                    for (size_t c = 0; c < d; ++c)
                        mix[h * d + c] += scores[j] / sum * qkv[j][value * d + c];
                }
            }
            add(x[t], linear(name + "out.weight", "", mix), 1);
        }
    }

    const ModelFile& file_;
    const ModelSpec& s_;
    PartReference parts_;
};

// Every byte a token, two merges, two added tokens.
inline AlignedBytes byte_level_decoder() {
    std::vector<std::string> pieces;
    pieces.reserve(260);
    for (int byte = 0; byte < 256; ++byte)
        pieces.emplace_back(1, static_cast<char>(byte));
    pieces.insert(pieces.end(), {"ab", "abc", "</s>", "<t>"});
    ModelSpec s = TinyDecoder{}.spec();
    s.vocabulary = static_cast<uint32_t>(pieces.size());
    s.tokenizer = {};
    s.tokenizer.kind = TokenizerKind::byte_level_bpe;
    s.tokenizer.flags = tokenizer_flag::llama3_words | tokenizer_flag::single_digits |
                        tokenizer_flag::whole_words | tokenizer_flag::added_tokens;
    s.tokenizer.max_tokens = s.max_positions;
    s.tokenizer.end = 258;
    auto tensors = random_tensors(s, only(TensorType::f32), 11);
    std::erase_if(tensors, [](const TensorSource& t) { return t.name.starts_with("tokenizer."); });
    add_vocabulary(tensors, pieces);
    tensors.push_back(tensor_of("tokenizer.merges", TensorType::u32, {2, 4},
                                std::vector<uint32_t>{'a', 'b', 256, 0, 256, 'c', 257, 1}));
    tensors.push_back(
        tensor_of("tokenizer.added", TensorType::u32, {2, 2}, std::vector<uint32_t>{258, 1, 259, 0}));
    return model_to_memory(s, std::move(tensors));
}

}  // namespace espalier::test
