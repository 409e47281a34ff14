// What the writer stores the reader gives back; files as they come from disc; versions to come.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>

#include "model_format/schema.h"
#include "tests/format/patch.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

// Every field away from its default.
ModelSpec rich_spec() {
    ModelSpec s = bare_spec();
    s.family = Family::decoder;
    s.norm = Norm::rms_norm;
    s.norm_placement = NormPlacement::pre;
    s.flags = model_flag::final_norm | model_flag::normalise_output | model_flag::embedding_norm;
    s.positions = Positions::rotary;
    s.position_scale = 0.5F;
    s.embedding_scale = 2.5F;
    s.rope_theta = 10000;
    s.rope_dimensions = 4;
    s.rope_pairing = RopePairing::neighbours;
    s.rope_scaling = {8, 1, 4, 8192};
    s.pooling = Pooling::last;
    s.logit_scale = 0.125F;
    s.tokenizer.kind = TokenizerKind::byte_level_bpe;
    s.tokenizer.flags = tokenizer_flag::add_begin | tokenizer_flag::add_end;
    s.tokenizer.max_tokens = 12;
    s.tokenizer.max_word_characters = 77;
    s.tokenizer.begin = 5;
    s.tokenizer.end = 6;
    s.tokenizer.continuation = "@@";
    s.name = "rich";
    PartSpec gated = dense_part(6);
    gated.flags = part_flag::gated;
    gated.activation = Activation::silu;
    PartSpec leaf = forest_part(PartKind::leaf_forest, 3, 1, 2);
    leaf.flags = part_flag::gated | part_flag::up_bias | part_flag::output_bias;
    leaf.tie = TieRule::zero_goes_right;
    PartSpec neuron = forest_part(PartKind::neuron_forest, 2, 2, 0);
    neuron.flags = part_flag::gated;
    neuron.routes_on = RoutesOn::gate;
    neuron.activation = Activation::relu;
    const PartSpec constants = forest_part(PartKind::leaf_forest, 1, 0, 0);  // one leaf: its bias alone
    add_block(s, block_flag::attention | block_flag::causal, {gated, leaf, neuron});
    s.blocks.back().kv_heads = 1;
    s.blocks.back().window = 9;
    add_block(s, 0, {constants});             // no attention
    add_block(s, block_flag::attention, {});  // no parts
    add_block(s, 0, {});                      // nothing at all
    add_head(s, "topic", HeadKind::classifier, 3, {"a", "b", "\xc3\xa9"}, 4);
    add_head(s, "score", HeadKind::regression, 1, {});
    add_head(s, "mood", HeadKind::classifier, 2, {"up", "down"});
    s.heads.back().pooling = Pooling::cls;
    return s;
}

#define SAME(field) CHECK(a.field == b.field)

void check_same(const TokenizerSpec& a, const TokenizerSpec& b) {
    SAME(kind);
    SAME(flags);
    SAME(max_tokens);
    SAME(max_word_characters);
    SAME(unknown);
    SAME(cls);
    SAME(sep);
    SAME(pad);
    SAME(mask);
    SAME(begin);
    SAME(end);
    SAME(continuation);
}
void check_same(const BlockSpec& a, const BlockSpec& b) {
    SAME(flags);
    SAME(heads);
    SAME(kv_heads);
    SAME(head_dimension);
    SAME(first_part);
    SAME(part_count);
    SAME(attention_scale);
    SAME(window);
}
void check_same(const PartSpec& a, const PartSpec& b) {
    SAME(kind);
    SAME(activation);
    SAME(flags);
    SAME(tie);
    SAME(width);
    SAME(trees);
    SAME(depth);
    SAME(leaf_width);
    SAME(routes_on);
}
void check_same(const HeadSpec& a, const HeadSpec& b) {
    SAME(name);
    SAME(kind);
    SAME(flags);
    SAME(activation);
    SAME(pooling);
    SAME(dense_width);
    SAME(outputs);
    SAME(first_label);
    SAME(label_count);
}
template <typename List>
void check_same_lists(const List& a, const List& b) {
    REQUIRE(a.size() == b.size());
    for (size_t i = 0; i < a.size(); ++i)
        check_same(a[i], b[i]);
}
void check_same(const ModelSpec& a, const ModelSpec& b) {
    SAME(family);
    SAME(hidden);
    SAME(vocabulary);
    SAME(max_positions);
    SAME(token_types);
    SAME(norm);
    SAME(norm_placement);
    SAME(norm_epsilon);
    SAME(flags);
    SAME(positions);
    SAME(position_scale);
    SAME(embedding_scale);
    SAME(rope_theta);
    SAME(rope_dimensions);
    SAME(rope_pairing);
    SAME(rope_scaling);
    SAME(pooling);
    SAME(logit_scale);
    SAME(name);
    SAME(origin);
    SAME(licence);
    SAME(producer);
    check_same(a.tokenizer, b.tokenizer);
    check_same_lists(a.blocks, b.blocks);
    check_same_lists(a.parts, b.parts);
    check_same_lists(a.heads, b.heads);
    CHECK(std::vector<std::string_view>(a.labels.begin(), a.labels.end()) ==
          std::vector<std::string_view>(b.labels.begin(), b.labels.end()));
}

#undef SAME

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

void check_same_tensors(const ModelFile& file, const std::vector<TensorSource>& sources) {
    CHECK(file.tensors().size() == sources.size());
    for (const TensorSource& source : sources) {
        CAPTURE(source.name);
        const TensorView& view = file.at(source.name);
        CHECK(same_bytes(view.bytes, source.data()));
        CHECK(view.type == source.type);
        CHECK(view.scales == source.scales);
        CHECK(view.layout == TensorLayout::row_major);
        CHECK(std::vector<uint64_t>(view.dimensions.begin(), view.dimensions.begin() + view.rank) ==
              source.dimensions);
        CHECK(view.offset % 64 == 0);
        CHECK(reinterpret_cast<uintptr_t>(view.bytes.data()) % 64 == 0);
    }
}

// The message of the Error that `act` throws; empty where it throws none.
template <typename Act>
std::string error_of(const Act& act, Status expected = Status::bad_model) {
    try {
        act();
    } catch (const Error& error) {
        CHECK(error.status() == expected);
        return error.what();
    }
    return "";
}

}  // namespace

TEST_CASE("every field of the spec and every tensor come back") {
    for (const ModelSpec& spec : {rich_spec(), tiny_spec()}) {
        const auto sources = random_tensors(spec, all_types());
        const AlignedBytes bytes = model_to_memory(spec, sources);
        const ModelFile file = ModelFile::from_memory(bytes.span());
        check_same(spec, file.spec());
        check_same_tensors(file, sources);
        file.verify_payload();
        CHECK(file.version_major() == 1);
        CHECK(file.version_minor() == 0);
        CHECK(file.find("no such tensor") == nullptr);
        CHECK(error_of([&] { file.at("no such tensor"); }).find("no such tensor: missing") !=
              std::string::npos);
    }
}

TEST_CASE("scales by column") {
    const ModelSpec spec = tiny_spec();
    auto sources = random_tensors(spec, only(TensorType::s8));
    for (TensorSource& source : sources) {
        if (source.name == "blocks.0.parts.0.down.weight") source.scales = TensorScales::per_column;
        if (source.name == "blocks.0.parts.0.down.weight.scale")
            source = tensor_of(source.name, TensorType::f32, {5}, std::vector<float>(5, 0.01F));
    }
    const AlignedBytes bytes = model_to_memory(spec, sources);
    const ModelFile file = ModelFile::from_memory(bytes.span());
    CHECK(file.at("blocks.0.parts.0.down.weight").scales == TensorScales::per_column);
    CHECK(file.at("blocks.0.parts.0.down.weight.scale").elements() == 5);
}

TEST_CASE("the tensors stand in the schema's order, and 64 KiB of zeros end the file") {
    const AlignedBytes bytes = tiny_model();
    const ModelFile file = ModelFile::from_memory(bytes.span());
    size_t i = 0;
    for (const TensorNeed& need : tensors_of(file.spec())) {
        CHECK(file.tensors()[i++].name == std::string_view(need.name));
        if (file.tensors()[i - 1].scales != TensorScales::none) ++i;
    }
    CHECK(i == file.tensors().size());
    CHECK(bytes.span().size() % 64 == 0);
    const TensorView& last = file.tensors().back();
    const uint64_t end = round_up(last.offset + last.bytes.size(), 64);
    CHECK(bytes.span().size() - end == layout::end_padding);
    for (const std::byte value : bytes.span().subspan(last.offset + last.bytes.size()))
        REQUIRE(value == std::byte{0});
}

TEST_CASE("from a file, mapped and read") {
    const TemporaryFolder folder;
    const std::string path = folder.path("tiny.esp");
    const ModelSpec spec = tiny_spec();
    const auto sources = random_tensors(spec, all_types());
    uint64_t last = 0, of = 0;
    write_model(path.c_str(), spec, sources, [&](uint64_t done, uint64_t total) {
        CHECK(done > last);
        last = done;
        of = total;
    });
    CHECK(last == of);
    const AlignedBytes memory = model_to_memory(spec, sources);
    for (const bool map : {true, false}) {
        const ModelFile file = ModelFile::open(path.c_str(), map);
        check_same(spec, file.spec());
        check_same_tensors(file, sources);
        file.verify_payload();
        CHECK(same_bytes(file.bytes(), memory.span()));
        CHECK(std::string(file.source()) == path);
    }
    ModelFile moved = ModelFile::open(path.c_str(), false);
    const ModelFile file = std::move(moved);
    check_same_tensors(file, sources);
}

TEST_CASE("memory that is not aligned is the caller's mistake") {
    const AlignedBytes bytes = tiny_model();
    AlignedBytes larger(bytes.span().size() + 64);
    for (const size_t shift : {size_t{1}, size_t{8}, size_t{32}}) {
        const auto place = larger.span().subspan(shift, bytes.span().size());
        std::memcpy(place.data(), bytes.span().data(), place.size());
        const std::string message =
            error_of([&] { ModelFile::from_memory(place); }, Status::invalid_argument);
        CHECK(message.find("multiple of 64") != std::string::npos);
    }
    CHECK(error_of([] { ModelFile::from_memory({}); }).find("expected at least 128 bytes") !=
          std::string::npos);
}

TEST_CASE("verify finds a flipped byte anywhere in the payload") {
    const AlignedBytes bytes = tiny_model();
    Patch patch(bytes.span());
    const uint64_t payload = patch.header().payload_offset;
    const ModelFile file = ModelFile::from_memory(patch.bytes());
    file.verify_payload();
    size_t flipped = 0;
    for (uint64_t i = payload; i < bytes.span().size(); i += i + 65536 < bytes.span().size() ? 7 : 509) {
        patch.bytes()[i] ^= std::byte{0x10};
        CHECK(error_of([&] { file.verify_payload(); }).find("payload at byte") != std::string::npos);
        patch.bytes()[i] ^= std::byte{0x10};
        ++flipped;
    }
    CHECK(flipped > 500);
    file.verify_payload();
}

TEST_CASE("what is no model file") {
    const TemporaryFolder folder;
    const auto open = [&](const std::string& name, Status status, bool map) {
        const std::string path = folder.path(name);
        const std::string message = error_of([&] { ModelFile::open(path.c_str(), map); }, status);
        CHECK(message.starts_with(path + ": "));
        CHECK(message.find('\n') == std::string::npos);
        return message;
    };
    write_file(folder.path("empty"), std::string());
    write_file(folder.path("text"), std::string(4096, 'x'));
    write_file(folder.path("short"), std::string("ESPALIER"));
    std::filesystem::create_directories(folder.path("folder"));
    REQUIRE(mkfifo(folder.path("pipe").c_str(), 0600) == 0);
    for (const bool map : {true, false}) {
        CHECK(open("missing", Status::io, map).find("cannot open") != std::string::npos);
        CHECK(open("folder", Status::io, map).find("regular file") != std::string::npos);
        CHECK(open("pipe", Status::io, map).find("regular file") != std::string::npos);
        CHECK(open("empty", Status::bad_model, map).find("found 0") != std::string::npos);
        CHECK(open("text", Status::bad_model, map).find("another kind of file") != std::string::npos);
        CHECK(open("short", Status::bad_model, map).find("found 8") != std::string::npos);
    }
}

namespace {

// The bytes of `model` as a later minor version would write them: a longer header, 16 more bytes at the
// end of every record, and a section of an unknown kind.
std::vector<std::byte> of_minor_version_nine(std::span<const std::byte> model) {
    constexpr size_t extra = 16, header_bytes = sizeof(layout::FileHeader) + 64;
    Patch old(model);
    std::vector<std::byte> directory(8 * sizeof(layout::SectionRecord), std::byte{0});
    for (uint32_t kind = 1; kind <= 8; ++kind) {
        directory.resize(round_up(directory.size(), 8));
        layout::SectionRecord section{kind, 24, 2, header_bytes + directory.size()};
        if (kind < 8) {
            const layout::SectionRecord& from = old.section(static_cast<layout::Section>(kind));
            const size_t more = kind == 7 ? 0 : extra;
            section.count = from.count;
            section.record_bytes = static_cast<uint32_t>(from.record_bytes + more);
            for (uint64_t i = 0; i < from.count; ++i) {
                const auto record = model.subspan(from.offset + i * from.record_bytes, from.record_bytes);
                directory.insert(directory.end(), record.begin(), record.end());
                directory.insert(directory.end(), more, std::byte{0xaa});
            }
        } else {
            directory.insert(directory.end(), 2 * 24, std::byte{0xbb});
        }
        std::memcpy(directory.data() + (kind - 1) * sizeof(section), &section, sizeof(section));
    }
    const uint64_t payload = round_up(header_bytes + directory.size(), 64);
    layout::FileHeader header = old.header();
    const uint64_t shift = payload - header.payload_offset;
    const layout::SectionRecord& from = old.section(layout::Section::tensors);
    layout::SectionRecord tensors;
    std::memcpy(&tensors, directory.data() + 5 * sizeof(tensors), sizeof(tensors));
    for (uint64_t i = 0; i < from.count; ++i) {  // every tensor moves up by the directory's growth
        std::byte* record = directory.data() + (tensors.offset - header_bytes) + i * tensors.record_bytes;
        layout::TensorRecord tensor;
        std::memcpy(&tensor, record, sizeof(tensor));
        tensor.offset += shift;
        std::memcpy(record, &tensor, sizeof(tensor));
    }
    std::vector<std::byte> out(header_bytes, std::byte{0xcc});
    out.insert(out.end(), directory.begin(), directory.end());
    out.resize(payload);
    const auto tail = model.subspan(header.payload_offset);
    out.insert(out.end(), tail.begin(), tail.end());
    header.version_minor = 9;
    header.header_bytes = header_bytes;
    header.file_bytes = out.size();
    header.directory_bytes = directory.size();
    header.payload_offset = payload;
    header.section_count = 8;
    std::memcpy(out.data(), &header, sizeof(header));
    return out;
}

}  // namespace

TEST_CASE("a later minor version with longer records and unknown sections is read") {
    const AlignedBytes bytes = tiny_model();
    const ModelSpec spec = tiny_spec();
    const AlignedBytes later = copy_of(of_minor_version_nine(bytes.span()));
    AlignedBytes hashed = copy_of(later.span());
    rehash(hashed.span());
    const ModelFile file = ModelFile::from_memory(hashed.span());
    CHECK(file.version_minor() == 9);
    check_same(spec, file.spec());
    check_same_tensors(file, random_tensors(spec, all_types()));
    file.verify_payload();
}

TEST_CASE("a later major version is refused as such, whatever follows") {
    AlignedBytes bytes = tiny_model();
    for (size_t i = sizeof(layout::FileHeader); i < 4096; ++i)
        bytes.span()[i] = std::byte{0xee};
    bytes.span()[8] = std::byte{2};
    const std::string message = error_of([&] { ModelFile::from_memory(bytes.span()); }, Status::unsupported);
    CHECK(message.find("version 1, found 2") != std::string::npos);
}

}  // namespace espalier::test
