#include "apps/synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "apps/clock.h"
#include "apps/random_numbers.h"
#include "base/checked.h"
#include "base/error.h"
#include "runtime/context.h"

namespace espalier {
namespace {

uint64_t name_seed(const std::string& name, uint64_t seed) {
    uint64_t hash = 1469598103934665603u ^ seed;
    for (const char c : name)
        hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    return hash;
}

// Norm weights are 1; weights scaled by their inputs, so that activations keep their size; the rest small.
std::vector<float> random_values(const std::string& name, uint64_t elements, uint64_t inputs, uint64_t seed) {
    std::vector<float> values(elements);
    if (name.ends_with("norm.weight")) {
        std::fill(values.begin(), values.end(), 1.0F);
        return values;
    }
    uint64_t state = name_seed(name, seed);
    const float scale = inputs == 0 ? 0.1F : 1.0F / std::sqrt(static_cast<float>(inputs));
    for (float& value : values)
        value = scale * random_normal(state);
    return values;
}

}  // namespace

SyntheticShape shape_named(const std::string& name) {
    if (name == "minilm") return {6, 384, 12, 30522, 512, 1536};
    if (name == "bert-base") return {12, 768, 12, 30522, 512, 3072};
    unsigned hidden = 0, blocks = 0;
    int end = 0;
    const bool llama = std::sscanf(name.c_str(), "llama-%5u-%3u%n", &hidden, &blocks, &end) == 2 &&
                       static_cast<size_t>(end) == name.size();
    if (!llama || hidden < 64 || hidden > 16384 || hidden % 64 != 0 || blocks < 1 || blocks > 128)
        throw Error(
            Status::invalid_argument,
            "--synthetic: expected minilm, bert-base or llama-H-L (H a multiple of 64 to 16384, L 1 to 128), "
            "found %.60s",
            name.c_str());
    const uint32_t heads = std::max(1u, hidden / 128);
    return {blocks,
            hidden,
            heads,
            32000,
            4096,
            static_cast<uint32_t>(round_up(hidden * 8 / 3, 256)),
            heads % 4 == 0 ? heads / 4 : heads};
}

SyntheticShape shape_of(const ModelSpec& spec) {
    SyntheticShape shape{static_cast<uint32_t>(spec.blocks.size()),
                         spec.hidden,
                         1,
                         spec.vocabulary,
                         spec.max_positions,
                         4 * spec.hidden};
    for (const BlockSpec& block : spec.blocks)
        shape.heads = std::max(shape.heads, block.heads);
    if (spec.family == Family::encoder) return shape;
    shape.kv_heads = 1;
    for (const BlockSpec& block : spec.blocks)
        shape.kv_heads = std::max(shape.kv_heads, block.kv_heads);
    return shape;
}

namespace {

// A Llama's: RMSNorm in front, rotary positions.
void describe_decoder(ModelSpec& s, uint32_t head_dimension) {
    s.family = Family::decoder;
    s.norm = Norm::rms_norm;
    s.norm_placement = NormPlacement::pre;
    s.norm_epsilon = 1e-5F;
    s.flags = model_flag::final_norm;
    s.positions = Positions::rotary;
    s.rope_theta = 10000;
    s.rope_dimensions = head_dimension;
}

}  // namespace

std::unique_ptr<Import> synthetic_import(const SyntheticShape& shape, const std::vector<PartSpec>& parts,
                                         uint64_t seed) {
    auto import = std::make_unique<Import>();
    ModelSpec& s = import->spec;
    s.hidden = shape.hidden;
    s.vocabulary = shape.vocabulary;
    s.max_positions = shape.max_positions;
    if (shape.is_decoder()) {
        describe_decoder(s, shape.hidden / shape.heads);
    } else {
        s.token_types = 2;
        s.norm_epsilon = 1e-12F;
        s.flags = model_flag::embedding_norm | model_flag::normalise_output;
        s.pooling = Pooling::mean;
    }
    s.name = "synthetic";
    s.origin = "random weights";
    s.licence = "none";
    s.producer = "espalier";
    for (uint32_t b = 0; b < shape.blocks; ++b) {
        BlockSpec block;
        block.flags =
            block_flag::attention |
            (shape.is_decoder() ? block_flag::causal : block_flag::qkv_bias | block_flag::output_bias);
        block.heads = shape.heads;
        block.kv_heads = shape.is_decoder() ? shape.kv_heads : shape.heads;
        block.head_dimension = shape.hidden / shape.heads;
        block.attention_scale = 1.0F / std::sqrt(static_cast<float>(block.head_dimension));
        block.first_part = static_cast<uint32_t>(s.parts.size());
        block.part_count = static_cast<uint32_t>(parts.size());
        s.blocks.push_back(block);
        s.parts.insert(s.parts.end(), parts.begin(), parts.end());
    }
    for (const TensorNeed& need : tensors_of(s)) {
        FloatTensor tensor;
        tensor.name = need.name.text;
        uint64_t elements = 1;
        for (uint32_t axis = 0; axis < need.rank; ++axis) {
            tensor.dimensions.push_back(need.dimensions[axis]);
            elements *= need.dimensions[axis];
        }
        // Rows that are dotted with x scale by its width; rows that are summed up, by how many are.
        uint64_t inputs = need.role == TensorRole::weight && need.rank > 1 ? tensor.dimensions.back() : 0;
        if (tensor.name.ends_with("leaf.down.weight")) inputs = need.dimensions[2];
        if (tensor.name.ends_with(".out.weight") && need.rank == 3) inputs = need.dimensions[0];
        tensor.values = [name = tensor.name, elements, inputs, seed] {
            return random_values(name, elements, inputs, seed);
        };
        import->tensors.push_back(std::move(tensor));
    }
    return import;
}

namespace {

// Sets the thresholds of one tree to medians of the test values of the tokens that come by.
class Balancer {
   public:
    Balancer(const Model& model, std::span<std::byte> bytes) : model_(model), bytes_(bytes) {}

    static void observe(void* self, uint32_t block, const float* x, size_t tokens) {
        static_cast<Balancer*>(self)->balance(block, x, tokens);
    }

   private:
    // The kernel reads the threshold in our own bytes: writing there is what the model sees next.
    float* writable(const float* place) const {
        const auto offset = reinterpret_cast<const std::byte*>(place) - bytes_.data();
        if (offset < 0 || static_cast<size_t>(offset) >= bytes_.size())
            throw Error(Status::internal, "synthetic model: thresholds are not read from the model's bytes");
        return reinterpret_cast<float*>(bytes_.data() + offset);
    }

    void balance(uint32_t block, const float* x, size_t tokens) {
        for (const PreparedPart& part : model_.prepared().blocks[block].parts) {
            if (!part.spec->is_forest() || part.spec->depth == 0) continue;
            const bool leaf = part.spec->kind == PartKind::leaf_forest;
            const uint64_t nodes = part.spec->nodes_per_tree();
            const uint64_t inner =
                (uint64_t{1} << part.spec->depth) - 1;  // the last level of a neuron tree chooses nothing
            for (uint64_t k = 0; k < part.spec->trees; ++k) {
                const float* rows =
                    static_cast<const float*>(leaf ? part.leaf_forest.node_weight : part.neuron_forest.in) +
                    k * nodes * model_.spec().hidden;
                const float* of_all = leaf ? part.leaf_forest.node_threshold : part.neuron_forest.in_bias;
                if (of_all == nullptr)
                    continue;  // of gated neuron trees: random gates are balanced as they are
                const float* thresholds = of_all + k * nodes;
                balance_tree(rows, writable(thresholds), leaf ? 1.0F : -1.0F, inner, x, tokens);
            }
        }
    }

    // sign: a leaf tree subtracts its threshold, a neuron tree adds its bias.
    void balance_tree(const float* rows, float* thresholds, float sign, uint64_t inner, const float* x,
                      size_t tokens) {
        const size_t hidden = model_.spec().hidden;
        std::vector<uint64_t> node(tokens, 0);
        std::vector<float> value(tokens), sorted;
        std::vector<std::vector<size_t>> members(inner);
        for (size_t t = 0; t < tokens; ++t)
            members[0].push_back(t);
        for (uint64_t n = 0; n < inner; ++n) {
            if (members[n].empty()) continue;
            sorted.clear();
            for (const size_t t : members[n]) {
                value[t] = 0;
                for (size_t i = 0; i < hidden; ++i)
                    value[t] += x[t * hidden + i] * rows[n * hidden + i];
                sorted.push_back(value[t]);
            }
            const auto middle = sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2);
            std::nth_element(sorted.begin(), middle, sorted.end());
            // Between two tokens, not on one.
            const float below =
                sorted.size() > 1 ? *std::max_element(sorted.begin(), middle) : *middle - 1.0F;
            const float threshold = 0.5F * (below + *middle);
            thresholds[n] = sign * threshold;
            for (const size_t t : members[n]) {
                const uint64_t child = 2 * n + (value[t] > threshold ? 2 : 1);
                if (child < inner) members[child].push_back(t);
            }
            members[n] = {};
        }
    }

    const Model& model_;
    std::span<std::byte> bytes_;
};

void balance_decoder(SyntheticModel& synthetic, uint64_t seed, size_t tokens) {
    std::vector<int32_t> ids(tokens);
    uint64_t state = seed;
    random_ids(synthetic.model->spec(), state, ids);
    ContextOptions options;
    options.max_tokens = static_cast<uint32_t>(tokens);
    Context context(*synthetic.model, options);
    Balancer balancer(*synthetic.model, synthetic.bytes.span());
    context.on_ffn_input(Balancer::observe, &balancer);
    context.decoder().append(ids);
}

void balance_trees(SyntheticModel& synthetic, uint64_t seed) {
    const ModelSpec& spec = synthetic.model->spec();
    uint64_t leaves = 0;
    for (const PartSpec& part : spec.parts) {
        if (part.is_forest()) leaves = std::max(leaves, part.leaves_per_tree());
    }
    if (leaves == 0) return;
    // Enough tokens that a leaf sees several: 16 each, at least 2,048, at most 32,768.
    const size_t length = std::min<size_t>(128, spec.max_positions);
    if (spec.family == Family::decoder)
        return balance_decoder(synthetic, seed, std::min(length, decoder_chunk));
    const size_t tokens = std::clamp<size_t>(leaves * 16, 2048, 32768) / length * length;
    std::vector<int32_t> ids(tokens);
    std::vector<uint32_t> offsets{0};
    uint64_t state = seed;
    for (size_t start = 0; start < tokens; start += length) {
        random_ids(spec, state, std::span(ids).subspan(start, length));
        offsets.push_back(static_cast<uint32_t>(start + length));
    }
    ContextOptions options;
    options.max_tokens = static_cast<uint32_t>(tokens);
    options.max_sequences = static_cast<uint32_t>(offsets.size() - 1);
    Context context(*synthetic.model, options);
    Balancer balancer(*synthetic.model, synthetic.bytes.span());
    context.on_ffn_input(Balancer::observe, &balancer);
    context.encode({ids, {}, offsets});
}

}  // namespace

void random_ids(const ModelSpec& spec, uint64_t& state, std::span<int32_t> ids) {
    // Below 1,000 stand BERT's special and unused tokens.
    const uint64_t first = spec.vocabulary > 2000 ? 1000 : 0;
    for (int32_t& id : ids)
        id = static_cast<int32_t>(first + next_random(state) % (spec.vocabulary - first));
    if (ids.size() < 2 || spec.tokenizer.cls < 0 || spec.tokenizer.sep < 0) return;
    ids.front() = spec.tokenizer.cls;
    ids.back() = spec.tokenizer.sep;
}

SyntheticModel make_synthetic(const SyntheticShape& shape, const std::vector<PartSpec>& parts,
                              Precision precision, uint64_t seed, const ModelOptions& options) {
    auto import = synthetic_import(shape, parts, seed);
    SyntheticModel synthetic{model_to_memory(import->spec, store(*import, precision)), nullptr, 0};
    const auto start = Clock::now();
    synthetic.model = Model::from_memory(synthetic.bytes.span(), options);
    synthetic.load_ms = milliseconds_since(start);
    balance_trees(synthetic, seed);
    return synthetic;
}

}  // namespace espalier
