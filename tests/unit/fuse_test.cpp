// Fused runs against the same layers one by one (FFN Fusion, arXiv 2503.18908, equation 5): every kind of
// part, differing widths, norms folded; and which layers are chosen.
#include "apps/fuse/fuse.h"

#include <doctest/doctest.h>

#include "apps/fuse/analysis.h"
#include "base/error.h"
#include "runtime/context.h"
#include "tests/part_reference.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

using Layers = std::vector<std::vector<PartSpec>>;

// Blocks without attention; post-norm models are encoders as BERT.
struct Shape {
    std::string name;
    Layers layers;
    Norm norm = Norm::rms_norm;
    NormPlacement placement = NormPlacement::pre;
    TensorType type = TensorType::f32;
    bool zero_scale = false;  // in the last layer's norm
    bool first_attends = false;
};

PartSpec changed(PartSpec part, uint32_t flags, Activation activation) {
    part.flags = flags;
    part.activation = activation;
    part.routes_on =
        part.kind == PartKind::neuron_forest && part.has(part_flag::gated) ? RoutesOn::gate : RoutesOn::up;
    return part;
}

ModelSpec spec_of(const Shape& shape) {
    ModelSpec s = bare_spec();
    s.hidden = 24;
    s.norm = shape.norm;
    s.norm_placement = shape.placement;
    s.norm_epsilon = 1e-6F;
    s.flags = 0;
    for (size_t b = 0; b < shape.layers.size(); ++b)
        add_block(s, b == 0 && shape.first_attends ? uint32_t{block_flag::attention} : 0u, shape.layers[b]);
    return s;
}

// Norms that differ from layer to layer, far from 1.
std::vector<TensorSource> tensors_for(const Shape& shape) {
    const ModelSpec spec = spec_of(shape);
    auto tensors = random_tensors(spec, only(shape.type), 5);
    std::mt19937_64 random(9);
    std::uniform_real_distribution<float> scale(0.3F, 2.0F);
    const std::string last = "blocks." + std::to_string(shape.layers.size() - 1) + ".ffn.norm.weight";
    for (TensorSource& tensor : tensors) {
        if (!tensor.name.ends_with(".norm.weight")) continue;
        std::vector<float> values(spec.hidden);
        for (float& value : values)
            value = scale(random) * (random() % 4 == 0 ? -1.0F : 1.0F);
        if (shape.zero_scale && tensor.name == last) values[3] = 0;
        tensor = tensor_of(tensor.name, TensorType::f32, {spec.hidden}, values);
    }
    return tensors;
}

// The model of block b alone; parts: with its feed-forward layer, attention: with that.
AlignedBytes only_block(const Shape& shape, size_t b, bool parts, bool attention) {
    const ModelSpec whole = spec_of(shape);
    ModelSpec spec = whole;
    spec.blocks = {whole.blocks[b]};
    spec.parts.clear();
    if (!attention) spec.blocks[0] = {};
    spec.blocks[0].first_part = 0;
    spec.blocks[0].part_count = parts ? whole.blocks[b].part_count : 0;
    for (uint32_t p = 0; p < spec.blocks[0].part_count; ++p)
        spec.parts.push_back(whole.parts_of(whole.blocks[b])[p]);
    std::vector<TensorSource> kept;
    const std::string prefix = "blocks." + std::to_string(b) + ".";
    for (TensorSource tensor : tensors_for(shape)) {
        if (tensor.name.starts_with(prefix)) {
            tensor.name = "blocks.0." + tensor.name.substr(prefix.size());
        } else if (tensor.name.starts_with("blocks.")) {
            continue;
        }
        const bool is_attention = tensor.name.starts_with("blocks.0.attention.");
        const bool is_part = tensor.name.starts_with("blocks.0.") && !is_attention;
        if ((is_attention && !attention) || (is_part && !parts)) continue;
        kept.push_back(std::move(tensor));
    }
    return model_to_memory(spec, std::move(kept));
}

AlignedBytes fused_bytes(const Shape& shape, const FusePlan& plan) {
    const AlignedBytes whole = model_to_memory(spec_of(shape), tensors_for(shape));
    const auto source = std::make_shared<const SourceModel>(ModelFile::from_memory(whole.span()));
    const auto import = fuse_model(source, plan);
    return model_to_memory(import->spec, store_fused(*import, *source));
}

// Hidden states of some ids in front of the first block and behind the last.
struct Run {
    std::vector<float> before, after;
};
Run run(const AlignedBytes& bytes, const std::string& isa, const std::string& backend) {
    ModelOptions options;
    options.isa = isa;
    options.backend = backend;
    options.precision = "f32";
    const auto model = Model::from_memory(bytes.span(), options);
    Context context(*model, {});
    Run result;
    context.on_layer(
        [](void* user, uint32_t layer, const float* values, size_t tokens) {
            auto* run = static_cast<Run*>(user);
            (layer == 0 ? run->before : run->after).assign(values, values + tokens * 24);
        },
        &result);
    const std::vector<int32_t> ids{2, 5, 7, 9, 10, 11, 6, 8, 3};
    const uint32_t offsets[] = {0, static_cast<uint32_t>(ids.size())};
    context.encode({ids, {}, offsets});
    return result;
}

// Of a whole vector of values.
double relative(const std::vector<float>& found, const std::vector<double>& expected) {
    REQUIRE(found.size() == expected.size());
    double error = 0, size = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        const double difference = std::fabs(found[i] - expected[i]);
        if (!(difference <= error)) error = difference;
        size = std::max(size, std::fabs(expected[i]));
    }
    return error / size;
}

// X + F_1(n_1(X)) + F_2(n_2(X)) + …, each layer run by itself.
std::vector<double> one_by_one(const Shape& shape, const std::string& isa, const std::string& backend) {
    std::vector<double> sum;
    for (size_t b = 0; b < shape.layers.size(); ++b) {
        const Run alone = run(only_block(shape, b, true, false), isa, backend);
        if (sum.empty()) sum.assign(alone.before.begin(), alone.before.end());
        for (size_t i = 0; i < sum.size(); ++i)
            sum[i] += static_cast<double>(alone.after[i]) - alone.before[i];
    }
    return sum;
}

// The same in double precision from the definitions; post-norm: the last norm of X + F_1(X) + F_2(X) + …
std::vector<double> defined(const Shape& shape, const std::vector<float>& x) {
    const AlignedBytes whole = model_to_memory(spec_of(shape), tensors_for(shape));
    const ModelFile file = ModelFile::from_memory(whole.span());
    const PartReference reference(file);
    const bool pre = shape.placement == NormPlacement::pre;
    std::vector<double> all;
    for (size_t start = 0; start < x.size(); start += 24) {
        const PartReference::Row row(x.begin() + static_cast<ptrdiff_t>(start),
                                     x.begin() + static_cast<ptrdiff_t>(start + 24));
        PartReference::Row sum = row;
        for (size_t b = 0; b < shape.layers.size(); ++b) {
            const auto input = pre ? reference.norm(row, "blocks." + std::to_string(b) + ".ffn.norm") : row;
            for (size_t p = 0; p < shape.layers[b].size(); ++p)
                PartReference::add(sum, reference.part(b, p, input), 1);
        }
        if (!pre)
            sum = reference.norm(sum, "blocks." + std::to_string(shape.layers.size() - 1) + ".ffn.norm");
        all.insert(all.end(), sum.begin(), sum.end());
    }
    REQUIRE(reference.least_margin() > 1e-5);  // no walk hangs on a rounding
    return all;
}

template <typename Check>
void on_every_kernel(const Check& check) {
    for (const Isa isa : available_isas())
        check(std::string(name_of(isa)), std::string("native"));
    if (onednn_compiled_in() && best_isa() != Isa::scalar && best_isa() != Isa::neon) check("", "onednn");
}

FusePlan whole_run(const Shape& shape) {
    return {{}, {{0, static_cast<uint32_t>(shape.layers.size() - 1)}}, {}};
}

constexpr uint32_t biased = part_flag::up_bias | part_flag::output_bias, gated = part_flag::gated;

// Layers of one kind, of differing widths and numbers of trees, some without biases.
std::vector<Shape> shapes() {
    const auto leaf = [](uint32_t trees) { return forest_part(PartKind::leaf_forest, trees, 2, 5); };
    const auto neuron = [](uint32_t trees) { return forest_part(PartKind::neuron_forest, trees, 3, 0); };
    const Activation silu = Activation::silu, gelu = Activation::gelu_erf;
    const auto gated_dense = [&](uint32_t width) { return changed(dense_part(width), gated, silu); };
    const Shape gated_leaves{"gated leaves",
                             {{changed(leaf(1), gated, silu)}, {changed(leaf(2), gated | biased, silu)}}};
    return {
        {"dense", {{dense_part(20)}, {changed(dense_part(33), 0, gelu)}, {dense_part(7)}}},
        {"gated dense", {{gated_dense(40)}, {gated_dense(17)}, {gated_dense(64)}}},
        {"gated dense with biases",
         {{gated_dense(9)},
          {changed(dense_part(17), gated | biased | part_flag::gate_bias, silu)},
          {changed(dense_part(20), gated | part_flag::gate_bias, silu)}}},
        {"leaves", {{leaf(1)}, {changed(leaf(3), part_flag::output_bias, gelu)}, {leaf(2)}}},
        gated_leaves,
        {"neurons", {{neuron(2)}, {changed(neuron(1), 0, gelu)}, {neuron(3)}}},
        {"gated neurons", {{changed(neuron(2), gated, silu)}, {changed(neuron(1), gated | biased, silu)}}},
        {"mixed",
         {{dense_part(8), leaf(1)},
          {changed(dense_part(9), biased, Activation::relu)},
          {dense_part(4), neuron(1), leaf(2)}}},
    };
}

}  // namespace

TEST_CASE("a fused run is the sum of its layers, folded norms included") {
    for (Shape shape : shapes()) {
        for (const bool zero_scale : {false, true}) {
            shape.zero_scale = zero_scale;
            CAPTURE(shape.name);
            CAPTURE(zero_scale);
            const AlignedBytes fused = fused_bytes(shape, whole_run(shape));
            const ModelFile file = ModelFile::from_memory(fused.span());
            REQUIRE(file.spec().blocks.size() == 1);
            if (shape.name != "mixed") {
                REQUIRE(file.spec().parts.size() == 1);
                uint64_t neurons = 0;
                for (const auto& layer : shape.layers)
                    neurons += layer[0].stored_neurons();
                CHECK(file.spec().parts[0].stored_neurons() == neurons);
            } else {
                CHECK(file.spec().parts.size() == 4);  // GELU, leaves, ReLU, neurons
            }
            on_every_kernel([&](const std::string& isa, const std::string& backend) {
                CAPTURE(isa);
                CAPTURE(backend);
                const Run found = run(fused, isa, backend);
                CHECK(relative(found.after, one_by_one(shape, isa, backend)) < 1e-5);
                CHECK(relative(found.after, defined(shape, found.before)) < 1e-5);
            });
        }
    }
}

TEST_CASE("the biases of LayerNorms are folded too, but not into the gates of trees") {
    for (Shape shape : shapes()) {
        shape.norm = Norm::layer_norm;
        CAPTURE(shape.name);
        if (shape.layers[0][0].has(part_flag::gated) && shape.layers[0][0].is_forest()) {
            try {
                fused_bytes(shape, whole_run(shape));
                FAIL_CHECK("nothing was refused");
            } catch (const Error& error) {
                CHECK(error.status() == Status::unsupported);
                CHECK(std::string(error.what()).find("layer 0: the bias of its norm") != std::string::npos);
            }
            continue;
        }
        const Run found = run(fused_bytes(shape, whole_run(shape)), "", "native");
        CHECK(relative(found.after, one_by_one(shape, "", "native")) < 1e-5);
        CHECK(relative(found.after, defined(shape, found.before)) < 1e-5);
    }
}

TEST_CASE("post-norm: the layers read the same states, and the last norm is behind the sum") {
    for (Shape shape : shapes()) {
        shape.placement = NormPlacement::post;
        shape.norm = Norm::layer_norm;
        CAPTURE(shape.name);
        const Run found = run(fused_bytes(shape, whole_run(shape)), "", "native");
        CHECK(relative(found.after, defined(shape, found.before)) < 1e-5);
    }
}

TEST_CASE("the first layer of a run may keep its attention") {
    for (Shape shape : shapes()) {
        shape.first_attends = true;
        CAPTURE(shape.name);
        const AlignedBytes fused = fused_bytes(shape, whole_run(shape));
        const Run found = run(fused, "", "native");
        const Run attended = run(only_block(shape, 0, false, true), "", "native");
        CHECK(relative(found.after, defined(shape, attended.after)) < 1e-5);
    }
}

TEST_CASE("narrow weights are widened, folded, and stored as they were") {
    for (const TensorType type : {TensorType::f16, TensorType::bf16, TensorType::s8}) {
        for (Shape shape : shapes()) {
            shape.type = type;
            CAPTURE(shape.name);
            CAPTURE(name_of(type));
            // Rounded nodes of trees may send a token elsewhere.
            if (shape.name != "dense" && shape.name != "gated dense") continue;
            const AlignedBytes fused = fused_bytes(shape, whole_run(shape));
            const ModelFile file = ModelFile::from_memory(fused.span());
            CHECK(file.at("blocks.0.parts.0.up.weight").type == type);
            CHECK(relative(run(fused, "", "native").after, one_by_one(shape, "", "native")) < 0.03);
        }
    }
}

TEST_CASE("what is not touched is copied byte for byte") {
    Shape shape = shapes()[0];
    shape.type = TensorType::s8;
    shape.first_attends = true;
    const AlignedBytes whole = model_to_memory(spec_of(shape), tensors_for(shape));
    const auto source = std::make_shared<const SourceModel>(ModelFile::from_memory(whole.span()));
    const FusePlan plan{{0}, {{1, 2}}, {}};
    const auto import = fuse_model(source, plan);
    const AlignedBytes bytes = model_to_memory(import->spec, store_fused(*import, *source));
    const ModelFile fused = ModelFile::from_memory(bytes.span());
    REQUIRE(fused.spec().blocks.size() == 2);
    CHECK_FALSE(fused.spec().blocks[0].has(block_flag::attention));
    CHECK(fused.spec().origin.ends_with("; no attention in layers 0; feed-forward layers fused: 1-2"));
    size_t same = 0;
    for (const TensorView& tensor : fused.tensors()) {
        if (tensor.name.starts_with("blocks.1.")) continue;
        const TensorView& old = source->file().at(tensor.name);
        CHECK(std::equal(tensor.bytes.begin(), tensor.bytes.end(), old.bytes.begin(), old.bytes.end()));
        ++same;
    }
    CHECK(same > 10);
}

TEST_CASE("runs, as the paper takes them and with the block in front") {
    Shape shape{"eight", Layers(8, {dense_part(3)})};
    ModelSpec spec = spec_of(shape);
    for (BlockSpec& block : spec.blocks)
        block.flags = block_flag::attention;
    const FusePlan plan{{1, 2, 3, 5, 7}, {}, {}};
    using Ranges = std::vector<BlockRange>;
    CHECK(automatic_runs(spec, plan, true, false) == Ranges{{1, 2}});
    CHECK(automatic_runs(spec, plan, false, false) == Ranges{{1, 3}});
    CHECK(automatic_runs(spec, plan, false, true) == Ranges{{0, 3}, {4, 5}, {6, 7}});
    CHECK(automatic_runs(spec, plan, true, true) == Ranges{{0, 2}});
    CHECK(parse_ranges("x", "4-6,1,2-3") == Ranges{{1, 1}, {2, 3}, {4, 6}});
}

TEST_CASE("full blocks: the window that depends least, then the next, never twice") {
    Shape shape{"nine", Layers(9, {dense_part(3)})};
    ModelSpec spec = spec_of(shape);
    for (BlockSpec& block : spec.blocks)
        block.flags = block_flag::attention;
    std::vector<double> m(81, 0.5);
    const auto low = [&](uint32_t first, uint32_t last, double value) {
        for (uint32_t i = first; i <= last; ++i) {
            for (uint32_t j = i + 1; j <= last; ++j)
                m[i * 9 + j] = value;
        }
    };
    low(3, 6, 0.1);
    using Ranges = std::vector<BlockRange>;
    CHECK(parallel_windows(spec, {}, m, 1) == Ranges{{3, 6}});
    CHECK(parallel_windows(spec, {}, m, 9) == Ranges{{0, 2}, {3, 6}, {7, 8}});
    // Equal in the largest: the smaller sum.
    m[4 * 9 + 5] = m[0 * 9 + 1] = 0.5;
    low(0, 3, 0.4);
    m[3 * 9 + 4] = 0.5;
    CHECK(parallel_windows(spec, {}, m, 1) == Ranges{{0, 3}});
    CHECK(parallel_windows(spec, {{4}, {}, {}}, m, 9) == Ranges{{0, 3}, {5, 8}});
}

TEST_CASE("plans that cannot be are refused in one line") {
    Shape shape{"five", Layers(5, {dense_part(3)})};
    ModelSpec spec = spec_of(shape);
    spec.blocks[0].flags = spec.blocks[3].flags = block_flag::attention;
    struct Case {
        FusePlan plan;
        const char* words;
    };
    const Case cases[] = {
        {{{9}, {}, {}}, "expected layers of 0 to 4, found 9"},
        {{{1}, {}, {}}, "layer 1 has no attention"},
        {{{}, {{1, 5}}, {}}, "layers 1-5: expected layers of 0 to 4"},
        {{{}, {{2, 1}}, {}}, "layers 2-1: expected layers of 0 to 4, the first not behind"},
        {{{}, {{1, 1}}, {}}, "two layers or more"},
        {{{}, {{0, 2}}, {}}, "layer 0 has attention (--drop-attention removes it; --pairs"},
        {{{}, {{1, 3}}, {}}, "layer 3 has attention (--drop-attention removes it)"},
        {{{}, {{1, 2}, {2, 4}}, {}}, "layer 2 is among layers 1-2 already"},
    };
    for (const Case& one : cases) {
        try {
            check_plan(spec, one.plan, false);
            FAIL_CHECK("nothing was refused: " << one.words);
        } catch (const Error& error) {
            CAPTURE(error.what());
            CHECK(error.status() == Status::invalid_argument);
            CHECK(std::string(error.what()).find(one.words) != std::string::npos);
        }
    }
    check_plan(spec, {{3}, {{1, 4}}, {}}, false);
    check_plan(spec, {{}, {{0, 2}}, {}}, true);
}

}  // namespace espalier::test
