// Decoders on a GPU against the same on the CPU: logits of prompts and of token after token, what is kept
// between them, and continuations. Skipped where there is no GPU. ESPALIER_BRIEF_TESTS: fewer tokens, for
// tools that look at every access to memory.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/error.h"
#include "runtime/generate.h"
#include "tests/cuda/gpu.h"
#include "tests/tiny_decoder.h"

namespace {

using namespace espalier;
using namespace espalier::test;

PartSpec gated(uint32_t width, Activation activation = Activation::silu) {
    PartSpec part;
    part.activation = activation;
    part.flags = part_flag::gated;
    part.width = width;
    return part;
}

PartSpec gated_neurons(RoutesOn routes_on) {
    PartSpec part = forest_part(PartKind::neuron_forest, 3, 3, 0);
    part.flags |= part_flag::gated;
    part.activation = Activation::silu;
    part.routes_on = routes_on;
    return part;
}

constexpr uint32_t attention = block_flag::attention | block_flag::causal;

struct Shape {
    uint32_t hidden = 64, heads = 4, kv_heads = 2, head_dimension = 16, window = 300;
};

ModelSpec spec_of(const Shape& shape, const std::vector<std::pair<uint32_t, std::vector<PartSpec>>>& blocks) {
    ModelSpec spec = TinyDecoder{.heads = shape.heads,
                                 .kv_heads = shape.kv_heads,
                                 .head_dimension = shape.head_dimension,
                                 .hidden = shape.hidden}
                         .spec();
    spec.max_positions = spec.tokenizer.max_tokens = shape.window;
    spec.blocks.clear();
    spec.parts.clear();
    for (const auto& [flags, parts] : blocks) {
        add_block(spec, flags, parts);
        BlockSpec& block = spec.blocks.back();
        if (!block.has(block_flag::attention)) continue;
        block.heads = shape.heads;
        block.kv_heads = shape.kv_heads;
        block.head_dimension = shape.head_dimension;
        block.attention_scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dimension));
    }
    return spec;
}

ModelSpec llama(const Shape& shape) {
    return spec_of(shape, {{attention, {gated(shape.hidden + 20)}}, {attention, {gated(shape.hidden)}}});
}

// Numbers that keep their size through the blocks.
AlignedBytes model_of(const ModelSpec& spec) {
    const float scale = 2.0F / std::sqrt(static_cast<float>(spec.hidden));
    return TinyDecoder::bytes_of(spec, scale);
}

std::unique_ptr<Model> opened(const AlignedBytes& bytes, const char* precision) {
    ModelOptions options;
    options.precision = precision;
    options.backend = "native";
    return Model::from_memory(bytes.span(), options);
}

std::vector<int32_t> random_ids(size_t count, uint32_t vocabulary, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids)
        id = static_cast<int32_t>(random() % vocabulary);
    return ids;
}

size_t likeliest(std::span<const float> logits) {
    return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// A decoder on either side, fed alike.
class Pair {
   public:
    Pair(const ModelSpec& spec, const char* precision, uint32_t window = 0)
        : bytes_(model_of(spec)),
          model_(opened(bytes_, precision)),
          cpu_(*model_, on("cpu", window)),
          gpu_(*model_, on("cuda", window)) {}

    void clear() {
        cpu_.decoder().clear();
        gpu_.decoder().clear();
    }
    std::vector<int32_t> ids(size_t count, uint32_t seed) const {
        return random_ids(count, model_->spec().vocabulary, seed);
    }
    // The next tokens on both. The largest difference of a logit, in parts of the largest logit.
    double append(std::span<const int32_t> ids) {
        const auto expected = cpu_.decoder().append(ids), found = gpu_.decoder().append(ids);
        REQUIRE(expected.size() == found.size());
        CHECK(cpu_.decoder().length() == gpu_.decoder().length());
        double largest = 0, difference = 0;
        for (size_t i = 0; i < expected.size(); ++i) {
            largest = std::max(largest, std::fabs(double{expected[i]}));
            const double d = std::fabs(double{expected[i]} - found[i]);
            difference = std::isnan(d) ? INFINITY : std::max(difference, d);
        }
        next_ = static_cast<int32_t>(likeliest(expected));
        absolute_ = std::max(absolute_, difference);
        relative_ = std::max(relative_, difference / largest);
        return difference / largest;
    }
    // The token that the CPU finds likeliest behind the last.
    int32_t next() const { return next_; }
    double absolute() const { return absolute_; }
    double relative() const { return relative_; }
    Context& cpu() { return cpu_; }
    Context& gpu() { return gpu_; }

   private:
    static ContextOptions on(const char* device, uint32_t window) {
        ContextOptions options;
        options.device = device;
        options.max_tokens = window;
        return options;
    }
    AlignedBytes bytes_;
    std::unique_ptr<Model> model_;
    Context cpu_, gpu_;
    int32_t next_ = 0;
    double absolute_ = 0, relative_ = 0;
};

// A sequence in bfloat16 may differ by this part of its largest logit. Both sides round what every product
// reads, by 2^-9 at most; the GPU also what attention reads and gives and what gates give, some six roundings
// a block more, of random signs. Blocks here are few and as large as what they add to: 2^-9 * sqrt(6 * 4) = 1
// %, for the worst of all tokens three times as much.
constexpr double narrow_budget = 0.03;

void check(const ModelSpec& spec, size_t prompt, size_t more) {
    if (is_brief()) more = 2;
    CAPTURE(spec.hidden);
    CAPTURE(prompt);
    for (const char* precision : {"f32", "bf16"}) {
        CAPTURE(precision);
        Pair both(spec, precision);
        for (const uint32_t seed : {1u, 2u}) {
            if (is_brief() && seed > 1) break;
            both.clear();
            both.append(both.ids(prompt, seed));
            for (size_t i = 0; i < more; ++i) {
                const int32_t id = seed == 1 ? both.next() : both.ids(1, static_cast<uint32_t>(i))[0];
                both.append({&id, 1});
            }
            // Several tokens behind what is cached.
            both.append(both.ids(5, seed));
        }
        MESSAGE(std::string(precision), ": largest difference ", both.absolute(), ", of the largest logit ",
                both.relative());
        if (precision == std::string("f32")) {
            CHECK(both.absolute() < 1e-3);
        } else {
            CHECK(both.relative() < narrow_budget);
        }
    }
}

}  // namespace

TEST_CASE("prompts and tokens behind them") {
    if (!has_gpu()) return;
    for (const size_t prompt : {size_t{1}, size_t{2}, size_t{17}, size_t{70}}) {
        if (!is_brief() || prompt == 2 || prompt == 70) check(llama({}), prompt, 6);
    }
}

TEST_CASE("heads that share keys, or none do; heads up to 128 wide") {
    if (!has_gpu()) return;
    check(llama({.hidden = 64, .heads = 2, .kv_heads = 2, .head_dimension = 24}), 20, 4);
    check(llama({.hidden = 72, .heads = 6, .kv_heads = 2, .head_dimension = 40}), 20, 4);
    check(llama({.hidden = 128, .heads = 10, .kv_heads = 1, .head_dimension = 72}), 67, 4);
    check(llama({.hidden = 256, .heads = 4, .kv_heads = 1, .head_dimension = 128}), 67, 4);
}

TEST_CASE("a cache that grows from one bound of its length to the next") {
    if (!has_gpu()) return;
    check(llama({.hidden = 64, .heads = 4, .kv_heads = 1, .head_dimension = 64}), 250, 12);
}

TEST_CASE("a prompt of more tokens than go through at once") {
    if (!has_gpu() || is_brief()) return;
    check(llama({.hidden = 32, .heads = 2, .kv_heads = 1, .head_dimension = 16, .window = 2200}),
          device_chunk + 65, 2);
}

TEST_CASE("positions: pairs of neighbours, scaled, part of a head, none") {
    if (!has_gpu()) return;
    ModelSpec spec = llama({});
    SUBCASE("neighbours") {
        spec.rope_pairing = RopePairing::neighbours;
    }
    SUBCASE("scaled by a factor") {
        spec.rope_scaling = {4, 0, 0, 0};
    }
    SUBCASE("scaled as Llama 3.1's") {
        spec.rope_scaling = {8, 1, 4, 60};
    }
    SUBCASE("part of a head") {
        spec.rope_dimensions = 10;
    }
    SUBCASE("none") {
        spec.positions = Positions::none;
    }
    check(spec, 40, 4);
}

TEST_CASE("biases, a tied output matrix, LayerNorm, norms behind sublayers, no final norm") {
    if (!has_gpu()) return;
    PartSpec part = gated(50, Activation::gelu_tanh);
    part.flags |= part_flag::up_bias | part_flag::gate_bias | part_flag::output_bias;
    const uint32_t biases = attention | block_flag::qkv_bias | block_flag::output_bias;
    ModelSpec spec = spec_of({}, {{biases, {part}}, {biases, {part, dense_part(30)}}});
    SUBCASE("biases") {}
    SUBCASE("tied") {
        spec.flags |= model_flag::tied_output;
    }
    SUBCASE("LayerNorm") {
        spec.norm = Norm::layer_norm;
    }
    SUBCASE("norms behind") {
        spec.norm_placement = NormPlacement::post;
        spec.norm = Norm::layer_norm;
    }
    SUBCASE("no final norm") {
        spec.flags &= ~model_flag::final_norm;
    }
    check(spec, 30, 4);
}

TEST_CASE("fused layers, blocks without attention or without parts, blocks beside each other") {
    if (!has_gpu()) return;
    check(spec_of({}, {{attention, {gated(40)}},
                       {0, {gated(24), gated(64), dense_part(9)}},
                       {attention, {}},
                       {attention, {gated(40)}},
                       {attention | block_flag::parallel, {gated(30)}}}),
          33, 4);
}

// In float32 alone: a walk that rounding sends elsewhere gives other logits.
TEST_CASE("trees as feed-forward parts") {
    if (!has_gpu()) return;
    const ModelSpec spec =
        spec_of({}, {{attention, {forest_part(PartKind::leaf_forest, 2, 3, 20)}},
                     {attention, {forest_part(PartKind::neuron_forest, 4, 3, 0)}},
                     {attention, {gated_neurons(RoutesOn::up), gated_neurons(RoutesOn::gate)}},
                     {attention, {gated(20), forest_part(PartKind::leaf_forest, 1, 2, 9)}}});
    Pair both(spec, "f32");
    both.append(both.ids(45, 1));
    for (int i = 0; i < 8; ++i) {
        const int32_t id = both.next();
        both.append({&id, 1});
    }
    MESSAGE("largest difference ", both.absolute());
    CHECK(both.absolute() < 1e-3);
}

TEST_CASE("losses") {
    if (!has_gpu()) return;
    Pair both(llama({}), "f32");
    const auto ids = both.ids(40, 3);
    CHECK(both.gpu().decoder().loss(ids) == doctest::Approx(both.cpu().decoder().loss(ids)).epsilon(1e-5));
    // Logits of the last token behind it.
    both.clear();
    both.append(both.ids(3, 1));
    CHECK(both.absolute() < 1e-3);
}

TEST_CASE("continuations are the CPU's, greedy and drawn") {
    if (!has_gpu()) return;
    Pair both(llama({.window = 64}), "f32");
    const auto written = [](Context& context, const GenerateOptions& options, const char* prompt) {
        std::vector<int32_t> ids;
        const auto keep = [](void* user, int32_t id, std::string_view) {
            static_cast<std::vector<int32_t>*>(user)->push_back(id);
            return true;
        };
        const Generation result = generate(context, prompt, options, {keep, &ids});
        CHECK(ids.size() == result.tokens);
        ids.push_back(static_cast<int32_t>(result.stop));
        return ids;
    };
    size_t tokens = 0;
    for (const char* prompt : {"abc", "ab bc a", "c", "x abcabc"}) {
        if (is_brief() && tokens > 0) break;
        for (const float temperature : {0.0F, 1.0F, 4.0F}) {
            GenerateOptions options;
            options.sampler.temperature = temperature;
            options.sampler.seed = 7;
            const auto expected = written(both.cpu(), options, prompt);
            CHECK(written(both.gpu(), options, prompt) == expected);
            tokens += expected.size() - 1;
        }
    }
    MESSAGE(tokens, " tokens");
    CHECK((tokens > 20 || is_brief()));
    // Greedily and on past what would end a text. No two logits are so near that rounding could choose.
    both.clear();
    auto prompt = both.ids(9, 4);
    std::span<const int32_t> now(prompt);
    int32_t id = 0;
    for (int i = 0; i < (is_brief() ? 3 : 50); ++i) {
        const auto expected = both.cpu().decoder().append(now), found = both.gpu().decoder().append(now);
        CHECK(likeliest(expected) == likeliest(found));
        id = static_cast<int32_t>(likeliest(expected));
        now = {&id, 1};
    }
}

TEST_CASE("what a sequence may not be, a call that is cancelled, and the next one") {
    if (!has_gpu()) return;
    const AlignedBytes bytes = model_of(llama({}));
    const auto model = opened(bytes, "f32");
    int cancel = 0;
    ContextOptions on;
    on.max_tokens = 20;
    on.device = "cuda";
    on.cancel = &cancel;
    Context context(*model, on), fresh(*model, on);
    Decoder& decoder = context.decoder();
    const auto status = [](const auto& call) {
        try {
            call();
        } catch (const Error& error) {
            return error.status();
        }
        return Status::ok;
    };
    const auto ids = random_ids(21, model->spec().vocabulary, 1);
    const std::span<const int32_t> all(ids);
    CHECK(status([&] { decoder.append(all); }) == Status::too_long);
    CHECK(status([&] { decoder.append(all.first(15)); }) == Status::ok);
    CHECK(status([&] { decoder.append(all.first(6)); }) == Status::too_long);
    CHECK(decoder.length() == 15);
    for (int i = 0; i < 3; ++i) {  // also where a graph would be launched
        CHECK(status([&] { decoder.append(all.subspan(15, 1)); }) == Status::ok);
    }
    cancel = 1;
    CHECK(status([&] { decoder.append(all.first(1)); }) == Status::cancelled);
    CHECK(decoder.length() == 0);
    cancel = 0;
    const auto again = decoder.append(all.first(10));
    const std::vector<float> kept(again.begin(), again.end());
    const auto expected = fresh.decoder().append(all.first(10));
    CHECK(std::equal(kept.begin(), kept.end(), expected.begin()));
    CHECK(decoder.cache_bytes() == 2 * 2 * 2 * 16 * 4 * 20);  // blocks, keys and values, heads, 20 tokens
}

TEST_CASE("what does not run is a status") {
    if (!has_gpu()) return;
    const auto status_of = [](const ModelSpec& spec, const char* precision) {
        const AlignedBytes bytes = model_of(spec);
        const auto model = opened(bytes, precision);
        ContextOptions on;
        on.device = "cuda";
        try {
            const Context context(*model, on);
        } catch (const Error& error) {
            return error.status();
        }
        return Status::ok;
    };
    CHECK(status_of(llama({}), "f32") == Status::ok);
    CHECK(status_of(llama({}), "int8") == Status::unsupported);
    CHECK(status_of(llama({.hidden = 64, .heads = 2, .kv_heads = 1, .head_dimension = 136}), "f32") ==
          Status::unsupported);
    CHECK(status_of(llama({.hidden = 64, .heads = 2, .kv_heads = 1, .head_dimension = 20}), "f32") ==
          Status::unsupported);
    CHECK(status_of(TinyDecoder{.head_dimension = 8, .gated_trees = true}.spec(), "f32") ==
          Status::unsupported);
}
