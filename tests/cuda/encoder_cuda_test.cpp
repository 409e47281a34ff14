// Encoders on a GPU against the same on the CPU: the same leaves but for hairlines, and outputs close to each
// other. Skipped where there is no GPU.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/error.h"
#include "runtime/context.h"
#include "tests/cuda/gpu.h"
#include "tests/tiny_model.h"

namespace {

using namespace espalier;
using namespace espalier::test;

// Texts of a batch: the first is the longest, the others are of any length up to it, or all alike.
struct Sizes {
    uint32_t sequences, longest;
    bool alike = false;
    uint32_t most_tokens() const { return sequences * longest; }
};
Sizes brief_or(const Sizes& brief, const Sizes& whole) {
    return is_brief() ? brief : whole;
}

constexpr uint32_t attention = block_flag::attention | block_flag::qkv_bias | block_flag::output_bias;

// Numbers that keep their size through the blocks.
AlignedBytes model_of(const ModelSpec& spec, uint64_t seed) {
    auto tensors = random_tensors(spec, only(TensorType::f32), seed);
    scale_matrices(tensors, 2.0F / std::sqrt(static_cast<float>(spec.hidden)));
    return model_to_memory(spec, std::move(tensors));
}

struct Texts {
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;
    std::vector<uint32_t> offsets{0};
    Batch batch() const { return {ids, types, offsets}; }

    Texts(const ModelSpec& spec, const Sizes& sizes, uint32_t seed) {
        std::mt19937 random(seed);
        for (uint32_t s = 0; s < sizes.sequences; ++s) {
            const uint32_t length = s == 0 || sizes.alike ? sizes.longest : 1 + random() % sizes.longest;
            for (uint32_t t = 0; t < length; ++t) {
                ids.push_back(static_cast<int32_t>(random() % spec.vocabulary));
                types.push_back(static_cast<uint8_t>(spec.token_types > 0 ? random() % spec.token_types : 0));
            }
            offsets.push_back(static_cast<uint32_t>(ids.size()));
        }
    }
};

struct Difference {
    double hidden = 0;     // the largest of any token that no hairline decided, on its way or before
    size_t leaves = 0;     // walks that ended elsewhere
    size_t hairlines = 0;  // of them, or of tokens behind one
    size_t walks = 0;
};

// Sequences in which a hairline was met are left out: attention spreads what it changed.
Difference compare(const Model& model, Context& cpu, Context& gpu, const Batch& batch) {
    const auto expected = cpu.encode(batch);
    const auto found = gpu.encode(batch);
    REQUIRE(expected.size() == found.size());
    Difference d;
    const size_t hidden = model.spec().hidden;
    for (size_t s = 0; s < batch.sequences(); ++s) {
        bool met = false;
        size_t elsewhere = 0;
        for (const PreparedBlock& block : model.prepared().blocks) {
            for (const PreparedPart& part : block.parts) {
                if (!part.spec->is_forest()) continue;
                const size_t trees = part.spec->trees;
                for (size_t w = batch.offsets[s] * trees; w < batch.offsets[s + 1] * trees; ++w) {
                    ++d.walks;
                    met = met || cpu.routes(part.forest).margin[w] < hairline;
                    elsewhere += cpu.routes(part.forest).leaf[w] != gpu.routes(part.forest).leaf[w];
                }
            }
        }
        if (met) {
            d.hairlines += elsewhere;
            continue;
        }
        d.leaves += elsewhere;
        for (size_t i = batch.offsets[s] * hidden; i < batch.offsets[s + 1] * hidden; ++i) {
            const double difference = std::fabs(double{expected[i]} - found[i]);
            d.hidden = std::isnan(difference) ? INFINITY : std::max(d.hidden, difference);
        }
    }
    return d;
}

Difference compare(const ModelSpec& spec, const char* precision, const Sizes& sizes) {
    const AlignedBytes bytes = model_of(spec, 5);
    ModelOptions options;
    options.precision = precision;
    options.backend = "native";
    const auto model = Model::from_memory(bytes.span(), options);
    ContextOptions on;
    on.max_sequences = sizes.sequences;
    on.max_tokens = sizes.most_tokens();
    Context cpu(*model, on);
    on.device = "cuda";
    Context gpu(*model, on);
    Difference worst;
    // Three times the same shape: launched, recorded, launched again as a graph; then another shape.
    std::vector<uint32_t> seeds{1, 1, 1, 2};
    if (is_brief()) seeds.resize(2);
    for (const uint32_t seed : seeds) {
        const Texts texts(model->spec(), sizes, seed);
        const Difference d = compare(*model, cpu, gpu, texts.batch());
        worst.hidden = std::max(worst.hidden, d.hidden);
        worst.leaves += d.leaves;
        worst.hairlines += d.hairlines;
        worst.walks += d.walks;
    }
    MESSAGE("largest difference ", worst.hidden, ", ", worst.leaves, " of ", worst.walks,
            " walks ended elsewhere, ", worst.hairlines, " more behind hairlines");
    return worst;
}

ModelSpec spec_of(uint32_t hidden, const std::vector<std::vector<PartSpec>>& blocks) {
    ModelSpec spec = bare_spec();
    spec.hidden = hidden;
    spec.max_positions = 256;
    spec.tokenizer.max_tokens = 256;
    for (const auto& parts : blocks)
        add_block(spec, attention, parts);
    for (BlockSpec& block : spec.blocks) {
        block.heads = block.kv_heads = (hidden + 63) / 64;
        block.head_dimension = hidden / block.heads;
        block.attention_scale = 1.0F / std::sqrt(static_cast<float>(block.head_dimension));
    }
    return spec;
}

// A leaf that differs is a matter of rounding between the blocks; see docs/cuda.md for the share.
void check_rounded(const ModelSpec& spec, const char* precision, const Sizes& sizes, double share,
                   double largest) {
    const Difference d = compare(spec, precision, sizes);
    CHECK(static_cast<double>(d.leaves) < share * static_cast<double>(d.walks) + 1);
    if (d.leaves == 0) CHECK(d.hidden < largest);
}
void check_bf16(const ModelSpec& spec, const Sizes& sizes) {
    check_rounded(spec, "bf16", sizes, 0.1, 0.15);
}

void check(const ModelSpec& spec, const Sizes& sizes) {
    CAPTURE(spec.hidden);
    const Difference exact = compare(spec, "f32", sizes);
    CHECK(exact.leaves == 0);
    CHECK(exact.hidden < 1e-3);
    check_bf16(spec, sizes);
    // What differs is where a value lies between two steps.
    check_rounded(spec, "int8", sizes, 0.05, 0.05);
}

const PartSpec leaves = forest_part(PartKind::leaf_forest, 3, 3, 20),
               neurons = forest_part(PartKind::neuron_forest, 8, 4, 0);

}  // namespace

// Cases rather than parts of one: the sanitizers' processes take one each.
namespace {

ModelSpec every_kind() {
    return spec_of(96, {{dense_part(50)},
                        {leaves},
                        {neurons},
                        {leaves, dense_part(50), neurons, dense_part(7)},
                        {forest_part(PartKind::leaf_forest, 1, 0, 70)},
                        {forest_part(PartKind::leaf_forest, 2, 4, 0)},
                        {}});
}

// By blocks, by warps, in two steps.
void check_tree_of_width(uint32_t hidden) {
    const ModelSpec spec = spec_of(hidden, {{forest_part(PartKind::neuron_forest, 1, 9, 0)}});
    check(spec, {1, 20});
    check(spec, brief_or({3, 129, true}, {4, 200}));
    check(spec, brief_or({6, 173, true}, {20, 200}));
}

}  // namespace

TEST_CASE("every kind of part: one token") {
    if (has_gpu()) check(every_kind(), {1, 1});
}
TEST_CASE("every kind of part: one text") {
    if (has_gpu()) check(every_kind(), {1, 37});
}
TEST_CASE("every kind of part: a batch") {
    if (has_gpu()) check(every_kind(), brief_or({5, 129, true}, {33, 129}));
}

TEST_CASE("one large tree of neurons, 64 wide") {
    if (has_gpu()) check_tree_of_width(64);
}
TEST_CASE("one large tree of neurons, 112 wide") {
    if (has_gpu()) check_tree_of_width(112);
}
TEST_CASE("one large tree of neurons, 384 wide") {
    if (has_gpu()) check_tree_of_width(384);
}
TEST_CASE("one large tree of neurons, 768 wide") {
    if (has_gpu()) check_tree_of_width(768);
}

// In bfloat16 tiles are larger and steps fewer from 64 tokens a processor on.
TEST_CASE("one large tree of neurons and as many tokens as fill a GPU") {
    if (!has_gpu()) return;
    cudaDeviceProp device{};
    REQUIRE(cudaGetDeviceProperties(&device, 0) == cudaSuccess);
    const uint32_t longest = 250, processors = static_cast<uint32_t>(device.multiProcessorCount);
    // Outputs in bfloat16, and in float32 in stretches of which the last is narrow.
    std::vector<ModelSpec> specs;
    for (const uint32_t hidden : {64u, 144u})
        specs.push_back(spec_of(hidden, {{forest_part(PartKind::neuron_forest, 1, 11, 0)}}));
    specs[1].norm_placement = NormPlacement::pre;
    const Sizes sizes{64 * processors / longest + 1, longest, true};
    for (const ModelSpec& spec : specs) {
        if (is_brief()) {
            check_bf16(spec, sizes);
        } else {
            check(spec, sizes);
        }
    }
}

TEST_CASE("narrow heads, several of which share their keys and values") {
    if (!has_gpu()) return;
    for (const uint32_t dimension : {16u, 32u}) {
        ModelSpec spec = spec_of(128, {{leaves}, {dense_part(64)}});
        for (BlockSpec& block : spec.blocks) {
            block.heads = 128 / dimension;
            block.kv_heads = block.heads / 2;
            block.head_dimension = dimension;
            block.attention_scale = 1.0F / std::sqrt(static_cast<float>(dimension));
        }
        check(spec, brief_or({3, 77}, {9, 129}));
    }
}

TEST_CASE("wide leaves, activations, ties") {
    if (!has_gpu()) return;
    const auto with = [](Activation activation) {
        std::vector<PartSpec> parts{dense_part(64), forest_part(PartKind::leaf_forest, 1, 5, 130),
                                    forest_part(PartKind::neuron_forest, 2, 5, 0)};
        for (PartSpec& part : parts) {
            part.activation = activation;
            part.tie = TieRule::zero_goes_right;
        }
        check(spec_of(128, {parts}), {3, 100});
    };
    SUBCASE("GELU by tanh") {
        with(Activation::gelu_tanh);
    }
    SUBCASE("ReLU") {
        with(Activation::relu);
    }
    SUBCASE("SiLU") {
        with(Activation::silu);
    }
    SUBCASE("tanh") {
        with(Activation::tanh);
    }
    SUBCASE("none") {
        with(Activation::none);
    }
}

// Norms: a block a row up to 512 tokens and where a row is wider than a warp keeps; else a warp.
TEST_CASE("rows wider than a warp keeps, in every form of a norm") {
    if (!has_gpu()) return;
    for (const uint32_t hidden : {832u, 1152u})
        check(spec_of(hidden, {{dense_part(96), forest_part(PartKind::leaf_forest, 1, 2, 64)}}),
              brief_or({5, 103, true}, {9, 100, true}));
}

TEST_CASE("pre-norm, RMSNorm, a final norm, blocks in parallel, no biases") {
    if (!has_gpu()) return;
    ModelSpec spec = spec_of(64, {{leaves}, {neurons}, {dense_part(40)}});
    spec.norm_placement = NormPlacement::pre;
    spec.flags = model_flag::final_norm;
    spec.blocks[1].flags |= block_flag::parallel;
    for (BlockSpec& block : spec.blocks)
        block.flags &= ~(block_flag::qkv_bias | block_flag::output_bias);
    for (PartSpec& part : spec.parts)
        part.flags = 0;
    SUBCASE("LayerNorm") {}
    SUBCASE("RMSNorm") {
        spec.norm = Norm::rms_norm;
    }
    check(spec, {5, 60});
}

TEST_CASE("embeddings and scores") {
    if (!has_gpu()) return;
    ModelSpec spec = spec_of(96, {{leaves}});
    add_head(spec, "sentiment", HeadKind::classifier, 2, {"negative", "positive"}, 96);
    for (const Pooling pooling : {Pooling::mean, Pooling::cls, Pooling::last}) {
        spec.pooling = pooling;
        spec.heads[0].pooling = pooling;
        const AlignedBytes bytes = model_of(spec, 3);
        const auto model = Model::from_memory(bytes.span(), {});
        ContextOptions on;
        on.max_sequences = 6;
        on.max_tokens = 6 * 40;
        Context cpu(*model, on);
        on.device = "cuda:0";
        Context gpu(*model, on), other(*model, on);
        CHECK(gpu.device_name() != nullptr);
        const Texts texts(model->spec(), {6, 40}, 4);
        const auto near = [](std::span<const float> a, std::span<const float> b) {
            REQUIRE(a.size() == b.size());
            for (size_t i = 0; i < a.size(); ++i)
                CHECK(std::fabs(a[i] - b[i]) < 1e-3);
        };
        near(cpu.embed(texts.batch()), gpu.embed(texts.batch()));
        near(cpu.score(texts.batch(), 0), other.score(texts.batch(), 0));
    }
}

TEST_CASE("observers see what the CPU's see") {
    if (!has_gpu()) return;
    const ModelSpec spec = spec_of(64, {{leaves}, {dense_part(30)}});
    const AlignedBytes bytes = model_of(spec, 9);
    const auto model = Model::from_memory(bytes.span(), {});
    const Texts texts(model->spec(), {2, 30}, 4);
    std::vector<float> seen[2];
    for (const bool on_gpu : {false, true}) {
        ContextOptions on;
        on.max_tokens = 60;
        on.device = on_gpu ? "cuda" : "cpu";
        Context context(*model, on);
        context.on_layer(
            [](void* user, uint32_t, const float* values, size_t tokens) {
                auto& all = *static_cast<std::vector<float>*>(user);
                all.insert(all.end(), values, values + tokens * 64);
            },
            &seen[on_gpu ? 1 : 0]);
        context.encode(texts.batch());
    }
    REQUIRE(seen[0].size() == 3 * texts.ids.size() * 64);
    REQUIRE(seen[0].size() == seen[1].size());
    float largest = 0;
    for (size_t i = 0; i < seen[0].size(); ++i)
        largest = std::max(largest, std::fabs(seen[0][i] - seen[1][i]));
    CHECK(largest < 1e-3F);
}

TEST_CASE("what does not run is a status, and the process goes on") {
    if (!has_gpu()) return;
    const ModelSpec spec = spec_of(64, {{leaves}});
    const AlignedBytes bytes = model_of(spec, 9);
    const auto status_of = [&](const char* precision, uint32_t max_tokens, const char* device) {
        ModelOptions options;
        options.precision = precision;
        const auto model = Model::from_memory(bytes.span(), options);
        try {
            make_cuda_encoder(*model, device_named(device).number, {max_tokens, 1, 1}, nullptr);
        } catch (const Error& error) {
            return error.status();
        }
        return Status::ok;
    };
    CHECK(status_of("f32", 100, "cuda:99") == Status::unsupported);
    CHECK(status_of("f32", 1u << 31, "cuda") == Status::out_of_memory);
    CHECK(status_of("f32", 100, "cuda") == Status::ok);
    check(spec, {2, 20});
}

TEST_CASE("a GPU whose memory is taken") {
    if (!has_gpu()) return;
    const ModelSpec spec = spec_of(64, {{leaves}});
    const AlignedBytes bytes = model_of(spec, 9);
    const auto model = Model::from_memory(bytes.span(), {});
    ContextOptions on;
    on.max_tokens = 1u << 16;
    on.device = "cuda";
    size_t unused = 0, all = 0;
    REQUIRE(cudaMemGetInfo(&unused, &all) == cudaSuccess);
    std::vector<void*> taken;
    for (size_t step = unused; step >= size_t{1} << 20; step /= 2) {
        void* memory = nullptr;
        while (cudaMalloc(&memory, step) == cudaSuccess)
            taken.push_back(memory);
    }
    cudaGetLastError();
    const auto status = [&] {
        try {
            Context context(*model, on);
        } catch (const Error& error) {
            MESSAGE(std::string(error.what()));
            return error.status();
        }
        return Status::ok;
    };
    CHECK(status() == Status::out_of_memory);
    for (void* memory : taken)
        cudaFree(memory);
    CHECK(status() == Status::ok);
}

TEST_CASE("a call that is cancelled") {
    if (!has_gpu()) return;
    const ModelSpec spec = spec_of(64, {{leaves}});
    const AlignedBytes bytes = model_of(spec, 9);
    const auto model = Model::from_memory(bytes.span(), {});
    const Texts texts(model->spec(), {2, 30}, 4);
    int cancel = 1;
    ContextOptions on;
    on.max_tokens = 60;
    on.device = "cuda";
    on.cancel = &cancel;
    Context context(*model, on);
    for (int i = 0; i < 3; ++i) {
        try {
            context.encode(texts.batch());
            CHECK(cancel == 0);
        } catch (const Error& error) {
            CHECK(error.status() == Status::cancelled);
            CHECK(cancel == 1);
        }
        cancel = i == 0 ? 0 : 1;
    }
}
