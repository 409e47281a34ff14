// Every validation behind the hashes, one after another: a field is overwritten, the hashes are made right
// again, and the message must name what is wrong. Every message is one line that names the source.
#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "tests/format/patch.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

using layout::Section;

const AlignedBytes& model() {
    static const AlignedBytes bytes = tiny_model();
    return bytes;
}

// The words that must stand in the message, and the edit that provokes it.
struct Case {
    std::vector<std::string> words;
    std::function<void(Patch&)> edit;
};

void check_message(const std::string& message, const std::vector<std::string>& words) {
    CAPTURE(message);
    CHECK(message.starts_with("model in memory: "));
    CHECK(message.find('\n') == std::string::npos);
    for (const std::string& word : words) {
        CAPTURE(word);
        CHECK(message.find(word) != std::string::npos);
    }
}

void check_all(const std::vector<Case>& cases) {
    for (const Case& one : cases) {
        Patch patch(model().span());
        one.edit(patch);
        check_message(patch.message(), one.words);
    }
}

constexpr uint64_t huge = std::numeric_limits<uint64_t>::max();

}  // namespace

TEST_CASE("the unchanged model opens") {
    CHECK(Patch(model().span()).message() == "");
}

TEST_CASE("header") {
    check_all({
        {{"byte 0", "another kind"}, [](Patch& p) { p.header().magic[0] = 'X'; }},
        {{"byte 8", "version 1", "found 2", "newer"}, [](Patch& p) { p.header().version_major = 2; }},
        {{"byte 8", "found 0", "older"}, [](Patch& p) { p.header().version_major = 0; }},
        {{"byte 16", "truncated"}, [](Patch& p) { p.header().file_bytes += 64; }},
        {{"byte 16", "too long"}, [](Patch& p) { p.header().file_bytes -= 64; }},
        {{"byte 12", "found 64"}, [](Patch& p) { p.header().header_bytes = 64; }},
        {{"byte 12", "found 132"}, [](Patch& p) { p.header().header_bytes = 132; }},
        {{"byte 12", "found 8192"}, [](Patch& p) { p.header().header_bytes = 8192; }},
        {{"byte 24", "directory"}, [](Patch& p) { p.header().directory_bytes = huge - 64; }},
        {{"byte 24"}, [](Patch& p) { p.header().directory_bytes = huge - 130; }},
        {{"byte 24"}, [](Patch& p) { p.header().directory_bytes = huge; }},
        {{"byte 24", "payload"}, [](Patch& p) { p.header().payload_offset += 64; }},
        {{"byte 24"}, [](Patch& p) { p.header().payload_offset = 0; }},
        {{"byte 64", "section"}, [](Patch& p) { p.header().section_count = 65; }},
        {{"byte 64"}, [](Patch& p) { p.header().section_count = 0xffffffff; }},
    });
    Patch patch(model().span());
    patch.header().reserved[0] = 1;
    check_message(patch.message(false), {"header", "hash"});
    Patch other(model().span());
    other.model().hidden = 9;
    check_message(other.message(false), {"directory", "hash"});
}

TEST_CASE("a directory that ends where the padding must begin") {
    Patch patch(model().span());
    auto& header = patch.header();
    header.payload_offset = round_up(header.file_bytes - layout::end_padding, 64) + 64;
    header.directory_bytes = header.payload_offset - header.header_bytes;
    check_message(patch.message(), {"byte 24"});
}

TEST_CASE("the gap between directory and payload is zero") {
    Patch patch(model().span());
    const uint64_t end = patch.header().header_bytes + patch.header().directory_bytes;
    if (end % 64 == 0) return;
    patch.bytes()[end] = std::byte{1};
    check_message(patch.message(), {"gap", "zeros"});
}

TEST_CASE("sections") {
    check_all({
        {{"section 1", "kind"}, [](Patch& p) { p.section(Section::blocks).kind = 1; }},
        {{"section 0", "kind"}, [](Patch& p) { p.section(Section::model).kind = 0; }},
        {{"section 2", "fit"}, [](Patch& p) { p.section(Section::parts).record_bytes = 0; }},
        {{"section 2", "fit"}, [](Patch& p) { p.section(Section::parts).record_bytes = 4097; }},
        {{"section 3", "fit"}, [](Patch& p) { p.section(Section::heads).offset += 8; }},
        {{"section 3", "fit"}, [](Patch& p) { p.section(Section::heads).offset = huge - 7; }},
        {{"section 5", "fit"}, [](Patch& p) { p.section(Section::tensors).count = huge; }},
        {{"section 5", "fit"}, [](Patch& p) { p.section(Section::tensors).count = huge / 88 + 2; }},
        {{"section 6", "fit"}, [](Patch& p) { p.section(Section::strings).count += 1; }},
        {{"directory", "end"}, [](Patch& p) { p.section(Section::strings).count -= 1; }},
        {{"kind 7", "missing"}, [](Patch& p) { p.section(Section::strings).kind = 99; }},
        {{"strings"}, [](Patch& p) { p.model().name.offset = 0xffffffff; }},
        {{"licence", "strings"}, [](Patch& p) { p.model().licence.bytes = 0xffffffff; }},
        {{"name", "in all"},
         [](Patch& p) {
             p.model().name = {0, uint32_t(p.section(Section::strings).count)};
         }},
    });
}

// Sections that end early, with the later ones moved up, so that only the count or the stride is wrong.
TEST_CASE("record counts and strides") {
    Patch shorter(model().span());
    shorter.section(Section::strings).kind = 8;  // unknown kinds are skipped, so strings are missing now
    check_message(shorter.message(), {"kind 7", "missing"});

    Patch split(model().span());  // the model's record as two of half the length
    split.section(Section::model).count = 2;
    split.section(Section::model).record_bytes /= 2;
    check_message(split.message(), {"section kind 1", "found 2 of"});

    Patch tensors(model().span());
    auto& section = tensors.section(Section::tensors);
    section.count *= 88;
    section.record_bytes = 1;
    check_message(tensors.message(), {"section kind 6", "at least 88"});

    Patch strings(model().span());
    auto& text = strings.section(Section::strings);
    if (text.count % 2 == 0) {
        text.count /= 2;
        text.record_bytes = 2;
        check_message(strings.message(), {"strings section"});
    }
}

TEST_CASE("model fields") {
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::nanf("");
    check_all({
        {{"family"}, [](Patch& p) { p.model().family = 3; }},
        {{"family"}, [](Patch& p) { p.model().family = 0; }},
        {{"hidden", "found 0"}, [](Patch& p) { p.model().hidden = 0; }},
        {{"hidden", "16777216"}, [](Patch& p) { p.model().hidden = (1u << 24) + 1; }},
        {{"vocabulary"}, [](Patch& p) { p.model().vocabulary = 0; }},
        {{"vocabulary"}, [](Patch& p) { p.model().vocabulary = 0xffffffff; }},
        {{"max_positions"}, [](Patch& p) { p.model().max_positions = 0; }},
        {{"token_types"}, [](Patch& p) { p.model().token_types = 257; }},
        {{"norm:"}, [](Patch& p) { p.model().norm = 0; }},
        {{"norm_placement"}, [](Patch& p) { p.model().norm_placement = 3; }},
        {{"positions"}, [](Patch& p) { p.model().positions = 4; }},
        {{"rope_pairing"}, [](Patch& p) { p.model().rope_pairing = 2; }},
        {{"pooling"}, [](Patch& p) { p.model().pooling = 4; }},
        {{"norm_epsilon", "positive"}, [](Patch& p) { p.model().norm_epsilon = 0; }},
        {{"norm_epsilon"}, [=](Patch& p) { p.model().norm_epsilon = nan; }},
        {{"position_scale"}, [=](Patch& p) { p.model().position_scale = infinity; }},
        {{"embedding_scale"}, [=](Patch& p) { p.model().embedding_scale = -infinity; }},
        {{"logit_scale"}, [=](Patch& p) { p.model().logit_scale = nan; }},
        {{"rope_scaling"}, [=](Patch& p) { p.model().rope_scaling[3] = nan; }},
        {{"rope_scaling", "a factor above 0"}, [](Patch& p) { p.model().rope_scaling[0] = -2; }},
        {{"rope_scaling", "low below high"}, [](Patch& p) { p.model().rope_scaling[1] = 2; }},
        {{"rope_scaling", "low below high"},
         [](Patch& p) { std::ranges::fill(p.model().rope_scaling, 2.0F); }},
        {{"rope_theta", "positive"}, [](Patch& p) { p.model().positions = 3; }},
        {{"rope_dimensions", "2 to", "found 0"},
         [](Patch& p) {
             p.model().positions = 3;
             p.model().rope_theta = 100;
         }},
        {{"rope_dimensions", "even"},
         [](Patch& p) {
             p.model().positions = 3;
             p.model().rope_theta = 100;
             p.model().rope_dimensions = 3;
         }},
        {{"head_dimension", "6 to", "found 4"},
         [](Patch& p) {
             p.model().positions = 3;
             p.model().rope_theta = 100;
             p.model().rope_dimensions = 6;
         }},
        {{"model", "flags", "0x20"}, [](Patch& p) { p.model().flags = 32; }},
    });
}

TEST_CASE("tokenizer fields") {
    check_all({
        {{"tokenizer", "kind"}, [](Patch& p) { p.model().tokenizer = 5; }},
        {{"tokenizer", "flags"}, [](Patch& p) { p.model().tokenizer_flags = 512; }},
        {{"max_tokens", "1 to 16", "found 17"}, [](Patch& p) { p.model().max_tokens = 17; }},
        {{"max_tokens", "found 0"}, [](Patch& p) { p.model().max_tokens = 0; }},
        {{"max_tokens", "3 to 16", "found 2"}, [](Patch& p) { p.model().max_tokens = 2; }},
        {{"max_word_characters"}, [](Patch& p) { p.model().max_word_characters = 0; }},
        {{"max_word_characters"}, [](Patch& p) { p.model().max_word_characters = (1u << 20) + 1; }},
        {{"special token", "found 24"}, [](Patch& p) { p.model().special_tokens[3] = 24; }},
        {{"special token"}, [](Patch& p) { p.model().special_tokens[6] = -2; }},
        {{"[UNK]"}, [](Patch& p) { p.model().special_tokens[0] = -1; }},
        {{"[CLS]"}, [](Patch& p) { p.model().special_tokens[1] = -1; }},
        {{"[SEP]"}, [](Patch& p) { p.model().special_tokens[2] = -1; }},
    });
}

TEST_CASE("a model without a tokenizer cannot ask for contexts of any length") {
    Patch patch(model().span());
    patch.model().tokenizer = 0;
    patch.model().max_tokens = 1u << 31;
    check_message(patch.message(), {"tokenizer", "max_tokens", "0 to 16", "2147483648"});
}

TEST_CASE("blocks") {
    check_all({
        {{"block 1", "flags"}, [](Patch& p) { p.block(1).flags |= 32; }},
        {{"block 0", "parallel", "in front"}, [](Patch& p) { p.block(0).flags |= 16; }},
        {{"block 1", "parallel", "behind"}, [](Patch& p) { p.block(1).flags |= 16; }},
        {{"block 0", "part_count"}, [](Patch& p) { p.block(0).part_count = 0xffffffff; }},
        {{"block 1", "part_count", "0 to 1"}, [](Patch& p) { p.block(1).part_count = 2; }},
        {{"block 0", "first_part"}, [](Patch& p) { p.block(0).first_part = 1; }},
        {{"block 1", "first_part"}, [](Patch& p) { p.block(1).first_part = 0xffffffff; }},
        {{"parts used by blocks"}, [](Patch& p) { p.block(1).part_count = 0; }},
        {{"heads", "found 0"}, [](Patch& p) { p.block(0).heads = 0; }},
        {{"heads", "65536"}, [](Patch& p) { p.block(0).heads = 65537; }},
        {{"kv_heads", "1 to 2"}, [](Patch& p) { p.block(0).kv_heads = 3; }},
        {{"multiple of kv_heads"}, [](Patch& p) { p.block(0).heads = 3; }},
        {{"head_dimension"}, [](Patch& p) { p.block(0).head_dimension = 0; }},
        {{"query width"}, [](Patch& p) { p.block(0).heads = p.block(0).head_dimension = 65536; }},
        {{"attention_scale", "positive"}, [](Patch& p) { p.block(0).attention_scale = 0; }},
        {{"attention_scale", "at least 1e-30"}, [](Patch& p) { p.block(0).attention_scale = 1e-36F; }},
    });
}

TEST_CASE("parts") {
    check_all({
        {{"part 0", "kind"}, [](Patch& p) { p.part(0).kind = 4; }},
        {{"part 1", "activation"}, [](Patch& p) { p.part(1).activation = 6; }},
        {{"part 1", "tie"}, [](Patch& p) { p.part(1).tie = 2; }},
        {{"part 2", "routes_on"}, [](Patch& p) { p.part(2).routes_on = 2; }},
        {{"part 2", "routes_on", "no gate"}, [](Patch& p) { p.part(2).routes_on = 1; }},
        {{"part 0", "routes_on", "no gate"}, [](Patch& p) { p.part(0).routes_on = 1; }},
        {{"part 2", "flags"}, [](Patch& p) { p.part(2).flags |= 16; }},
        {{"part 2", "gate_bias"}, [](Patch& p) { p.part(2).flags |= 8; }},
        {{"part 0", "width"}, [](Patch& p) { p.part(0).width = 0; }},
        {{"part 0", "width"}, [](Patch& p) { p.part(0).width = (1u << 24) + 1; }},
        {{"part 1", "trees"}, [](Patch& p) { p.part(1).trees = 0; }},
        {{"part 1", "trees"}, [](Patch& p) { p.part(1).trees = 0xffffffff; }},
        {{"part 1", "depth"}, [](Patch& p) { p.part(1).depth = 25; }},
        {{"part 1", "depth"}, [](Patch& p) { p.part(1).depth = 64; }},
        {{"part 1", "leaf_width"}, [](Patch& p) { p.part(1).leaf_width = (1u << 20) + 1; }},
        {{"part 1", "leaf_width", "neither"}, [](Patch& p) { p.part(1).leaf_width = p.part(1).flags = 0; }},
        {{"part 1", "stored neurons"},
         [](Patch& p) { p.part(1).depth = 24, p.part(1).leaf_width = 1u << 20; }},
        {{"part 1", "nodes of all trees"},
         [](Patch& p) { p.part(1).depth = 24, p.part(1).trees = 65536, p.part(1).leaf_width = 0; }},
        {{"part 2", "stored neurons"}, [](Patch& p) { p.part(2).depth = 24, p.part(2).trees = 65536; }},
        {{"part 2", "nodes of all trees"}, [](Patch& p) { p.part(2).depth = 24, p.part(2).trees = 100; }},
    });
}

TEST_CASE("heads and labels") {
    check_all({
        {{"head 0", "kind"}, [](Patch& p) { p.head(0).kind = 0; }},
        {{"head 0", "activation"}, [](Patch& p) { p.head(0).activation = 6; }},
        {{"head 0", "pooling"}, [](Patch& p) { p.head(0).pooling = 0; }},
        {{"head 1", "flags"}, [](Patch& p) { p.head(1).flags = 4; }},
        {{"head 0", "dense_width"}, [](Patch& p) { p.head(0).dense_width = 0xffffffff; }},
        {{"head 1", "outputs"}, [](Patch& p) { p.head(1).outputs = 0; }},
        {{"head 1", "outputs"}, [](Patch& p) { p.head(1).outputs = 65537; }},
        {{"head 0", "label_count"}, [](Patch& p) { p.head(0).outputs = 3; }},
        {{"labels used by heads"}, [](Patch& p) { p.head(0).label_count = p.head(1).first_label = 0; }},
        {{"head 1", "first_label"}, [](Patch& p) { p.head(0).label_count = 0; }},
        {{"head 0", "labels", "lie outside"}, [](Patch& p) { p.head(0).label_count = 0xffffffff; }},
        {{"head 1", "lie outside"}, [](Patch& p) { p.head(1).first_label = 0xffffffff; }},
        {{"head 0", "first_label"}, [](Patch& p) { p.head(0).first_label = p.head(0).label_count = 1; }},
        {{"head 1", "name", "exists"}, [](Patch& p) { p.head(0).name = p.head(1).name; }},
        {{"head", "strings"}, [](Patch& p) { p.head(1).name.offset = 0xffffffff; }},
        {{"label", "strings"}, [](Patch& p) { p.label(1).bytes = 0xffffffff; }},
    });
}

TEST_CASE("tensor records") {
    check_all({
        {{"tensor 3", "unknown type"}, [](Patch& p) { p.tensor(3).type = 0; }},
        {{"tensor 3", "unknown type"}, [](Patch& p) { p.tensor(3).type = 7; }},
        {{"tensor 3", "unknown layout"}, [](Patch& p) { p.tensor(3).layout = 5; }},
        {{"layout rotated", "expected the type s8"},
         [](Patch& p) { p.tensor("embeddings.position").layout = 4; }},
        {{"embeddings.word", "layout rotated does not fit"},
         [](Patch& p) { p.tensor("embeddings.word").layout = 4; }},
        {{"layout packed", "expected the type s8"}, [](Patch& p) { p.tensor(3).layout = 3; }},
        {{"layout transposed", "not read"}, [](Patch& p) { p.tensor(3).layout = 2; }},
        {{"unknown scales"}, [](Patch& p) { p.tensor(3).scales = 3; }},
        {{"rank"}, [](Patch& p) { p.tensor(3).rank = 0; }},
        {{"rank"}, [](Patch& p) { p.tensor(3).rank = 5; }},
        {{"dimensions"}, [](Patch& p) { p.tensor(3).dimensions[0] = 0; }},
        {{"dimensions"}, [](Patch& p) { p.tensor(3).dimensions[3] = 2; }},
        {{"dimensions"}, [](Patch& p) { p.tensor(3).dimensions[0] = huge; }},
        {{"dimensions"},
         [](Patch& p) { p.tensor(3).dimensions[0] = (huge >> 3) + 2; }},  // times 8 wraps to 8
        {{"overflows"}, [](Patch& p) { p.tensor(1).type = 1, p.tensor(1).dimensions[0] = huge / 4 + 2; }},
        {{"bytes", "imply"}, [](Patch& p) { p.tensor(3).bytes += 1; }},
        {{"offset", "right after"}, [](Patch& p) { p.tensor(3).offset += 64; }},
        {{"offset"}, [](Patch& p) { p.tensor(3).offset = huge - 63; }},
        {{"offset"}, [](Patch& p) { p.tensor(0).offset = 0; }},
        {{"tensor name", "strings"}, [](Patch& p) { p.tensor(0).name.bytes = 0xffffffff; }},
    });
}

// Numbers that fit each other but not the file.
TEST_CASE("tensors that reach out of the file") {
    Patch far(model().span());
    const uint64_t last = far.section(Section::tensors).count - 1;
    auto& tensor = far.tensor(last);
    tensor.dimensions[0] = tensor.bytes = far.header().file_bytes;
    check_message(far.message(), {"beyond the payload"});

    Patch wraps(model().span());
    auto& other = wraps.tensor(last);
    other.dimensions[0] = other.bytes = huge - other.offset + 1;
    check_message(wraps.message(), {"beyond the payload"});

    Patch fewer(model().span());  // more than the padding follows
    REQUIRE(fewer.tensor(last).bytes > 64);
    fewer.tensor(last).dimensions[0] = fewer.tensor(last).bytes = 1;
    check_message(fewer.message(), {"end:", "65536"});
}

TEST_CASE("the schema: exactly the tensors of this architecture") {
    const auto rename = [](Patch& p, const char* from, const char* to) {
        p.tensor(from).name = p.tensor(to).name;
    };
    check_all({
        {{"embeddings.word", "missing"}, [](Patch& p) { p.tensor("embeddings.word").name.bytes -= 1; }},
        {{"embeddings.word.scale", "missing"},
         [](Patch& p) { p.tensor("embeddings.word.scale").name.bytes -= 1; }},
        {{"embeddings.type", "twice"}, [=](Patch& p) { rename(p, "embeddings.word", "embeddings.type"); }},
        {{"expected", "for this architecture", "found"}, [](Patch& p) { p.model().flags = 0; }},
        {{"final_norm.weight", "missing"}, [](Patch& p) { p.model().flags |= model_flag::final_norm; }},
        {{"gate.weight", "missing"}, [](Patch& p) { p.part(0).flags |= part_flag::gated; }},
        {{"embeddings.word", "[25, 8, 1, 1]", "[24, 8, 1, 1]"}, [](Patch& p) { p.model().vocabulary = 25; }},
        {{"embeddings.position", "shape"}, [](Patch& p) { p.model().max_positions = 1u << 24; }},
        {{"blocks.0.attention.qkv.weight", "shape"}, [](Patch& p) { p.block(0).head_dimension = 2; }},
        {{"blocks.0.parts.0.up.weight", "shape"}, [](Patch& p) { p.part(0).width = 1u << 24; }},
        {{"blocks.0.parts.1.node.weight", "shape"}, [](Patch& p) { p.part(1).trees = 65536; }},
        {{"blocks.1.parts.0.in.weight", "shape"}, [](Patch& p) { p.part(2).depth = 2; }},
        {{"heads.1.out.weight", "shape"}, [](Patch& p) { p.head(1).outputs = 2; }},
        {{"embeddings.type", "rank 1"},
         [](Patch& p) {
             auto& t = p.tensor("embeddings.type");
             t.rank = 1, t.dimensions[0] = 16, t.dimensions[1] = 1;
         }},
    });
}

TEST_CASE("the schema: types and scales") {
    check_all({
        {{"embeddings.word", "type u8", "fit"}, [](Patch& p) { p.tensor("embeddings.word").type = 5; }},
        {{"tokenizer.bytes", "type s8", "fit"}, [](Patch& p) { p.tensor("tokenizer.bytes").type = 4; }},
        {{"embeddings.norm.weight", "type u32", "fit"},
         [](Patch& p) {
             p.tensor("embeddings.norm.bias").type = 6, p.tensor("embeddings.norm.weight").type = 6;
         }},
        {{"embeddings.word", "needs", "scales"}, [](Patch& p) { p.tensor("embeddings.word").scales = 0; }},
        {{"embeddings.type", "takes no", "scales"}, [](Patch& p) { p.tensor("embeddings.type").scales = 1; }},
        {{"embeddings.word.scale", "8 f32", "24 f32"},
         [](Patch& p) { p.tensor("embeddings.word").scales = 2; }},
        {{"embeddings.word.scale", "24 u32"}, [](Patch& p) { p.tensor("embeddings.word.scale").type = 6; }},
        {{"embeddings.word.scale"}, [](Patch& p) { p.tensor("embeddings.word.scale").scales = 1; }},
    });
}

}  // namespace espalier::test
