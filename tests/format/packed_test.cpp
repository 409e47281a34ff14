// Weights that the file holds as the kernels read them: the same numbers as from rows, bit by bit, in every
// arithmetic; and nothing that a damaged file says of them is believed.
#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "kernels/dense/panel_pack.h"
#include "runtime/context.h"
#include "runtime/model.h"
#include "tests/format/patch.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

// Sizes that pack: products over whole words, outputs in whole vectors; more than one panel (80 and 96
// columns).
ModelSpec spec() {
    ModelSpec spec = bare_spec();
    spec.hidden = 32;
    const uint32_t attention = block_flag::attention | block_flag::qkv_bias | block_flag::output_bias;
    add_block(spec, attention, {dense_part(16), forest_part(PartKind::leaf_forest, 2, 2, 16)});
    add_block(spec, block_flag::attention, {dense_part(80)});
    add_block(spec, 0, {dense_part(5), forest_part(PartKind::leaf_forest, 1, 1, 6)});  // does not pack
    add_head(spec, "sentiment", HeadKind::classifier, 2, {"negative", "positive"}, 32);
    return spec;
}

AlignedBytes model(TensorLayout layout) {
    const ModelSpec s = spec();
    const auto needs = tensors_of(s);
    auto tensors = random_tensors(s, [](const TensorNeed& need) {
        return need.rotation != Rotation::none ? TensorType::s8 : TensorType::f32;
    });
    for (TensorSource& tensor : tensors) {
        for (const TensorNeed& need : needs) {
            if (tensor.name != need.name.text || need.rotation == Rotation::none) continue;
            tensor.layout = TensorLayout::rotated;
            // As the converter makes them: the largest of each row is 127 steps, so that rounding again
            // changes nothing.
            auto steps = tensor.data();
            for (size_t i = 0; i < steps.size(); i += need.dimensions[need.rank - 1])
                steps[i] = std::byte{127};
            tensor.data = [steps] { return steps; };
            if (layout != TensorLayout::packed || !may_be_packed(need)) continue;
            tensor.layout = TensorLayout::packed;
            std::vector<std::byte> packed(steps.size());
            pack_bytes({steps.size(), need.dimensions[need.rank - 2], need.dimensions[need.rank - 1],
                        need.rotation == Rotation::before_last},
                       reinterpret_cast<const int8_t*>(steps.data()),
                       reinterpret_cast<uint8_t*>(packed.data()));
            tensor.data = [packed] { return packed; };
        }
    }
    return model_to_memory(s, std::move(tensors));
}

std::vector<float> answers(std::span<const std::byte> bytes, const char* isa, const char* precision,
                           uint64_t* prepared = nullptr) {
    ModelOptions options;
    options.backend = "native";
    options.isa = isa;
    options.precision = precision;
    const auto opened = Model::from_memory(bytes, options);
    if (prepared != nullptr) *prepared = opened->prepared_bytes();
    ContextOptions inner;
    inner.max_tokens = 32;
    Context context(*opened, inner);
    const auto tokens = context.tokenize("The tree, \xc3\xa9 leafs! a b c d", std::nullopt);
    const auto hidden = context.encode(tokens.batch());
    std::vector<float> all(hidden.begin(), hidden.end());
    const auto scores = context.score(tokens.batch(), 0);
    all.insert(all.end(), scores.begin(), scores.end());
    return all;
}

// Opens and runs; false where some step refuses with one line.
bool runs(std::span<const std::byte> bytes) {
    try {
        answers(bytes, "", "");
        return true;
    } catch (const Error& error) {
        REQUIRE(std::string_view(error.what()).find('\n') == std::string_view::npos);
        REQUIRE(error.what()[0] != 0);
        return false;
    }
}

void check_message(const std::string& message, const char* expected) {
    CAPTURE(message);
    CHECK(message.find(expected) != std::string::npos);
}

}  // namespace

TEST_CASE("packed bytes are those of the float packer, and come back") {
    std::mt19937 random(3);
    for (const bool sums_over_rows : {false, true}) {
        const size_t k = 12, columns = 96, count = 3, size = k * columns;
        std::vector<int8_t> values(count * size), back(values.size());
        for (int8_t& value : values)
            value = static_cast<int8_t>(random() % 255 - 127);
        const ByteMatrices shape{values.size(), sums_over_rows ? k : columns, sums_over_rows ? columns : k,
                                 sums_over_rows};
        std::vector<uint32_t> packed(values.size() / 4), expected(packed.size());
        pack_bytes(shape, values.data(), reinterpret_cast<uint8_t*>(packed.data()));
        const std::vector<float> wide(values.begin(), values.end()), ones(columns, 1.0F);
        for (size_t m = 0; m < count; ++m)
            pack_panels(TensorType::s8,
                        {wide.data() + m * size, sums_over_rows ? columns : 1, sums_over_rows ? 1 : k}, k,
                        columns, columns, ones.data(), nullptr, expected.data() + m * size / 4);
        CHECK(packed == expected);
        unpack_bytes(shape, reinterpret_cast<const uint8_t*>(packed.data()), back.data());
        CHECK(back == values);
    }
}

TEST_CASE("a packed file answers as one of rows, and takes less memory beside it") {
    const AlignedBytes rows = model(TensorLayout::rotated), packed = model(TensorLayout::packed);
    CHECK(rows.span().size() == packed.span().size());
    for (const Isa isa : available_isas()) {
        for (const char* precision : {"int8", "bf16", "f32"}) {
            CAPTURE(name_of(isa));
            CAPTURE(precision);
            uint64_t copied = 0, in_place = 0;
            const auto expected = answers(rows.span(), name_of(isa), precision, &copied);
            const auto found = answers(packed.span(), name_of(isa), precision, &in_place);
            REQUIRE(found.size() == expected.size());
            // Where rows are rounded again, a scale may come out a last bit off.
            for (size_t i = 0; i < found.size(); ++i)
                CHECK(found[i] == doctest::Approx(expected[i]).epsilon(1e-4));
            CHECK((in_place < copied) == (std::string_view(precision) == "int8"));
        }
    }
}

TEST_CASE("what a file says of packed tensors is checked") {
    const AlignedBytes sound = model(TensorLayout::packed);
    const auto after = [&](const auto& edit) {
        Patch patch(sound.span());
        edit(patch);
        return patch.message();
    };
    constexpr uint32_t packed = 3;
    CHECK(after([](Patch&) {}).empty());
    check_message(after([](Patch& p) { p.tensor("blocks.0.attention.qkv.weight").layout_arguments[0] = 32; }),
                  "expected panels of 64 columns and 4 values a word, found 32 and 4");
    check_message(after([](Patch& p) { p.tensor("blocks.0.attention.qkv.weight").layout_arguments[1] = 8; }),
                  "found 64 and 8");
    check_message(after([](Patch& p) { p.tensor("embeddings.word").layout = packed; }),
                  "expected the type s8");
    check_message(after([](Patch& p) { p.tensor("blocks.0.attention.qkv.weight").scales = 2; }),
                  "scales by row");
    check_message(after([](Patch& p) {
                      auto& tensor = p.tensor("blocks.2.parts.1.leaf.up.weight");
                      tensor.layout = packed;
                      tensor.layout_arguments[0] = 64;
                      tensor.layout_arguments[1] = 4;
                  }),
                  "layout packed does not fit");
    check_message(after([](Patch& p) { p.tensor("blocks.0.attention.qkv.weight").layout = 1; }), "not read");
}

TEST_CASE("damaged files with packed tensors are refused, or run") {
    const AlignedBytes sound = model(TensorLayout::packed);
    layout::FileHeader header;
    std::memcpy(&header, sound.span().data(), sizeof(header));
    const uint64_t directory = header.header_bytes + header.directory_bytes,
                   payload = sound.span().size() - layout::end_padding;
    AlignedBytes bytes = copy_of(sound.span());
    std::mt19937_64 random(11);
    size_t ran = 0;
    constexpr int rounds = 3000;
    for (int round = 0; round < rounds; ++round) {
        std::memcpy(bytes.span().data(), sound.span().data(), payload);
        const uint64_t low = round % 2 == 0 ? header.header_bytes : directory,
                       high = round % 2 == 0 ? directory : payload;
        for (uint64_t edits = 1 + random() % 4; edits > 0; --edits)
            bytes.span()[low + random() % (high - low)] = static_cast<std::byte>(random());
        rehash(bytes.span());
        ran += runs(bytes.span());
    }
    MESSAGE(ran, " of ", rounds, " ran");
    CHECK(ran > 0);
    CHECK(ran < rounds);
}

}  // namespace espalier::test
