#include "model_format/directory.h"

#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "model_format/hash.h"

namespace espalier {
namespace {

unsigned long long wide(uint64_t value) {
    return value;
}

}  // namespace

void DirectoryParser::parse() {
    check_header();
    read_sections();
    read_model();
    read_blocks();
    read_parts();
    read_labels();
    read_heads();
    read_tensors();
}

void DirectoryParser::check_header() {
    const char* source = file_.source_;
    if (bytes_.size() < sizeof(header_))
        throw Error(Status::bad_model, "%s: header: expected at least %zu bytes, found %zu", source,
                    sizeof(header_), bytes_.size());
    std::memcpy(&header_, bytes_.data(), sizeof(header_));
    if (std::memcmp(header_.magic, layout::magic, sizeof(layout::magic)) != 0)
        throw Error(Status::bad_model, "%s: header at byte 0: expected ESPALIER, found another kind of file",
                    source);
    if (header_.version_major != layout::version_major)
        throw Error(Status::unsupported,
                    "%s: header at byte 8: expected format version %u, found %u (made by a %s program)",
                    source, layout::version_major, header_.version_major,
                    header_.version_major > layout::version_major ? "newer" : "older");
    if (header_.file_bytes != bytes_.size())
        throw Error(Status::bad_model, "%s: header at byte 16: expected a file of %llu bytes, found %zu (%s)",
                    source, wide(header_.file_bytes), bytes_.size(),
                    bytes_.size() < header_.file_bytes ? "truncated" : "too long");
    if (header_.header_bytes < sizeof(header_) || header_.header_bytes > layout::max_record_bytes ||
        header_.header_bytes % layout::record_alignment != 0 || header_.header_bytes > bytes_.size())
        throw Error(Status::bad_model, "%s: header at byte 12: expected a length of %zu to %u, found %u",
                    source, sizeof(header_), layout::max_record_bytes, header_.header_bytes);
    // The stored hash was made with its own field as zero; the header may be longer than this version knows.
    alignas(8) std::byte copy[layout::max_record_bytes];
    std::memcpy(copy, bytes_.data(), header_.header_bytes);
    std::memset(copy + offsetof(layout::FileHeader, header_hash), 0, sizeof(uint64_t));
    const uint64_t header_hash = hash_bytes({copy, header_.header_bytes});
    if (header_hash != header_.header_hash)
        throw Error(Status::bad_model, "%s: header at byte 0: expected hash %016llx, found %016llx", source,
                    wide(header_.header_hash), wide(header_hash));

    uint64_t directory_end = 0, payload = 0, least = 0;
    if (!checked_add(header_.header_bytes, header_.directory_bytes, directory_end) ||
        !checked_round_up(directory_end, layout::tensor_alignment, payload) ||
        payload != header_.payload_offset || !checked_add(payload, layout::end_padding, least) ||
        least > bytes_.size())
        throw Error(
            Status::bad_model,
            "%s: header at byte 24: directory of %llu bytes and payload at %llu do not fit a file of %zu",
            source, wide(header_.directory_bytes), wide(header_.payload_offset), bytes_.size());
    const uint64_t hash = hash_bytes(bytes_.subspan(header_.header_bytes, header_.directory_bytes));
    if (hash != header_.directory_hash)
        throw Error(Status::bad_model, "%s: directory at byte %u: expected hash %016llx, found %016llx",
                    source, header_.header_bytes, wide(header_.directory_hash), wide(hash));
    // The gap up to the payload belongs to neither hash: it must be zero.
    for (uint64_t i = directory_end; i < payload; ++i) {
        if (bytes_[i] != std::byte{0})
            throw Error(Status::bad_model, "%s: gap after the directory at byte %llu: expected zeros", source,
                        wide(i));
    }
    file_.version_ = {header_.version_major, header_.version_minor};
    file_.payload_offset_ = header_.payload_offset;
    file_.payload_hash_ = header_.payload_hash;
}

void DirectoryParser::read_sections() {
    const char* source = file_.source_;
    const uint64_t directory_end = header_.header_bytes + header_.directory_bytes;
    const uint64_t table_bytes = uint64_t{header_.section_count} * sizeof(layout::SectionRecord);
    if (header_.section_count > layout::max_sections || table_bytes > header_.directory_bytes)
        throw Error(Status::bad_model,
                    "%s: header at byte 64: expected at most %u sections that fit the directory, found %u",
                    source, layout::max_sections, header_.section_count);
    uint64_t position = header_.header_bytes + table_bytes;
    uint32_t previous_kind = 0;
    for (uint32_t i = 0; i < header_.section_count; ++i) {
        layout::SectionRecord r{};
        std::memcpy(&r, bytes_.data() + header_.header_bytes + i * sizeof(r), sizeof(r));
        uint64_t start = 0, bytes = 0, end = 0;
        if (r.kind <= previous_kind)
            throw Error(Status::bad_model, "%s: section %u: expected a kind above %u, found %u", source, i,
                        previous_kind, r.kind);
        if (r.record_bytes == 0 || r.record_bytes > layout::max_record_bytes ||
            !checked_round_up(position, layout::record_alignment, start) || start != r.offset ||
            !checked_multiply(r.count, r.record_bytes, bytes) || !checked_add(start, bytes, end) ||
            end > directory_end)
            throw Error(Status::bad_model,
                        "%s: section %u (kind %u) at byte %llu: %llu records of %u bytes do not fit the "
                        "directory, which ends at %llu",
                        source, i, r.kind, wide(r.offset), wide(r.count), r.record_bytes,
                        wide(directory_end));
        if (r.kind <= known_sections) sections_[r.kind] = {true, r.offset, r.count, r.record_bytes};
        previous_kind = r.kind;
        position = end;
    }
    if (position != directory_end)
        throw Error(Status::bad_model,
                    "%s: directory: expected its last section to end at byte %llu, found %llu", source,
                    wide(directory_end), wide(position));
}

const DirectoryParser::SectionView& DirectoryParser::section(layout::Section kind, uint64_t cap,
                                                             uint64_t record_bytes) const {
    const SectionView& view = sections_[static_cast<uint32_t>(kind)];
    if (!view.present)
        throw Error(Status::bad_model, "%s: directory: section kind %u is missing", file_.source_,
                    static_cast<uint32_t>(kind));
    if (view.count > cap || view.record_bytes < record_bytes)
        throw Error(Status::bad_model,
                    "%s: section kind %u at byte %llu: expected at most %llu records of at least %llu bytes, "
                    "found %llu of %llu",
                    file_.source_, static_cast<uint32_t>(kind), wide(view.offset), wide(cap),
                    wide(record_bytes), wide(view.count), wide(view.record_bytes));
    return view;
}

template <typename Record>
Record DirectoryParser::record(const SectionView& section, uint64_t index) const {
    Record result;
    std::memcpy(&result, bytes_.data() + section.offset + index * section.record_bytes, sizeof(result));
    return result;
}

std::string_view DirectoryParser::string(const layout::StringRecord& record, const char* what) {
    const SectionView& strings = section(layout::Section::strings, layout::max_string_bytes, 1);
    const uint64_t end = uint64_t{record.offset} + record.bytes;
    if (strings.record_bytes != 1 || end > strings.count)
        throw Error(Status::bad_model,
                    "%s: %s: string at %u of %u bytes lies outside the strings section of %llu bytes",
                    file_.source_, what, record.offset, record.bytes, wide(strings.count));
    // Otherwise many records could name the same megabytes, and whoever copies or compares them pays each
    // time.
    string_bytes_ += record.bytes;
    if (string_bytes_ > strings.count)
        throw Error(Status::bad_model,
                    "%s: %s: expected strings of at most %llu bytes in all (their section), found more",
                    file_.source_, what, wide(strings.count));
    return {reinterpret_cast<const char*>(bytes_.data() + strings.offset + record.offset), record.bytes};
}

void DirectoryParser::read_model() {
    const SectionView& view = section(layout::Section::model, 1, sizeof(layout::ModelRecord));
    if (view.count != 1)
        throw Error(Status::bad_model, "%s: section model: expected 1 record, found %llu", file_.source_,
                    wide(view.count));
    const auto r = record<layout::ModelRecord>(view, 0);
    ModelSpec& s = file_.spec_;
    s.family = static_cast<Family>(r.family);
    s.hidden = r.hidden;
    s.vocabulary = r.vocabulary;
    s.max_positions = r.max_positions;
    s.token_types = r.token_types;
    s.norm = static_cast<Norm>(r.norm);
    s.norm_placement = static_cast<NormPlacement>(r.norm_placement);
    s.norm_epsilon = r.norm_epsilon;
    s.flags = r.flags;
    s.positions = static_cast<Positions>(r.positions);
    s.position_scale = r.position_scale;
    s.embedding_scale = r.embedding_scale;
    s.rope_theta = r.rope_theta;
    s.rope_dimensions = r.rope_dimensions;
    s.rope_pairing = static_cast<RopePairing>(r.rope_pairing);
    for (size_t i = 0; i < s.rope_scaling.size(); ++i)
        s.rope_scaling[i] = r.rope_scaling[i];
    s.pooling = static_cast<Pooling>(r.pooling);
    s.logit_scale = r.logit_scale;
    TokenizerSpec& t = s.tokenizer;
    t.kind = static_cast<TokenizerKind>(r.tokenizer);
    t.flags = r.tokenizer_flags;
    t.max_tokens = r.max_tokens;
    t.max_word_characters = r.max_word_characters;
    t.unknown = r.special_tokens[0];
    t.cls = r.special_tokens[1];
    t.sep = r.special_tokens[2];
    t.pad = r.special_tokens[3];
    t.mask = r.special_tokens[4];
    t.begin = r.special_tokens[5];
    t.end = r.special_tokens[6];
    t.continuation = string(r.continuation, "model: continuation");
    s.name = string(r.name, "model: name");
    s.origin = string(r.origin, "model: origin");
    s.licence = string(r.licence, "model: licence");
    s.producer = string(r.producer, "model: producer");
}

void DirectoryParser::read_blocks() {
    const SectionView& view =
        section(layout::Section::blocks, layout::max_blocks, sizeof(layout::BlockRecord));
    file_.spec_.blocks.reserve(view.count);
    for (uint64_t i = 0; i < view.count; ++i) {
        const auto r = record<layout::BlockRecord>(view, i);
        file_.spec_.blocks.push_back({r.flags, r.heads, r.kv_heads, r.head_dimension, r.first_part,
                                      r.part_count, r.attention_scale, r.window});
    }
}

void DirectoryParser::read_parts() {
    const SectionView& view = section(layout::Section::parts, layout::max_parts, sizeof(layout::PartRecord));
    file_.spec_.parts.reserve(view.count);
    for (uint64_t i = 0; i < view.count; ++i) {
        const auto r = record<layout::PartRecord>(view, i);
        file_.spec_.parts.push_back({static_cast<PartKind>(r.kind), static_cast<Activation>(r.activation),
                                     r.flags, static_cast<TieRule>(r.tie), r.width, r.trees, r.depth,
                                     r.leaf_width, static_cast<RoutesOn>(r.routes_on)});
    }
}

void DirectoryParser::read_labels() {
    const SectionView& view =
        section(layout::Section::labels, layout::max_labels, sizeof(layout::StringRecord));
    file_.spec_.labels.reserve(view.count);
    for (uint64_t i = 0; i < view.count; ++i)
        file_.spec_.labels.push_back(string(record<layout::StringRecord>(view, i), "label"));
}

void DirectoryParser::read_heads() {
    const SectionView& view = section(layout::Section::heads, layout::max_heads, sizeof(layout::HeadRecord));
    file_.spec_.heads.reserve(view.count);
    for (uint64_t i = 0; i < view.count; ++i) {
        const auto r = record<layout::HeadRecord>(view, i);
        const uint64_t labels_end = uint64_t{r.first_label} + r.label_count;
        if (labels_end > file_.spec_.labels.size())
            throw Error(Status::bad_model, "%s: head %llu: labels %u to %llu lie outside the %zu labels",
                        file_.source_, wide(i), r.first_label, wide(labels_end), file_.spec_.labels.size());
        file_.spec_.heads.push_back({string(r.name, "head"), static_cast<HeadKind>(r.kind), r.flags,
                                     static_cast<Activation>(r.activation), static_cast<Pooling>(r.pooling),
                                     r.dense_width, r.outputs, r.first_label, r.label_count});
    }
}

template <class Fail>
void DirectoryParser::check_packed(const TensorView& view, const Fail& fail) const {
    if (view.type != TensorType::s8 || view.scales != TensorScales::per_row)
        throw fail("layout packed: expected the type s8 with scales by row");
    if (view.layout_arguments[0] != packed_columns || view.layout_arguments[1] != packed_values)
        throw Error(Status::unsupported,
                    "%s: tensor %.*s: expected panels of %u columns and %u values a word, found %u and %u",
                    file_.source_, static_cast<int>(view.name.size() < 80 ? view.name.size() : 80),
                    view.name.data(), packed_columns, packed_values, view.layout_arguments[0],
                    view.layout_arguments[1]);
}

TensorView DirectoryParser::read_tensor(const layout::TensorRecord& r, uint64_t index, uint64_t& position) {
    const char* source = file_.source_;
    TensorView view;
    view.name = string(r.name, "tensor name");
    const auto fail = [&](const char* what) {
        return Error(Status::bad_model, "%s: tensor %llu (%.*s) at byte %llu: %s", source, wide(index),
                     static_cast<int>(view.name.size() < 80 ? view.name.size() : 80), view.name.data(),
                     wide(r.offset), what);
    };
    if (r.type < 1 || r.type > 6) throw fail("unknown type");
    if (r.layout > 4) throw fail("unknown layout");
    if (r.scales > 2) throw fail("unknown scales");
    if (r.rank < 1 || r.rank > 4) throw fail("expected a rank of 1 to 4");
    view.type = static_cast<TensorType>(r.type);
    view.layout = static_cast<TensorLayout>(r.layout);
    view.scales = static_cast<TensorScales>(r.scales);
    view.rank = r.rank;
    view.offset = r.offset;
    uint64_t elements = 1, bytes = 0, start = 0, end = 0;
    for (size_t axis = 0; axis < 4; ++axis) {
        const uint64_t dimension = r.dimensions[axis];
        if (dimension == 0 || (axis >= r.rank && dimension != 1) ||
            !checked_multiply(elements, dimension, elements))
            throw fail("dimensions: expected positive ones, 1 beyond the rank, and a product below 2^64");
        view.dimensions[axis] = dimension;
        view.layout_arguments[axis] = r.layout_arguments[axis];
    }
    if (!checked_multiply(elements, bytes_of(view.type), bytes)) throw fail("size overflows");
    if (view.layout == TensorLayout::rotated && view.type != TensorType::s8)
        throw fail("layout rotated: expected the type s8");
    if (view.layout == TensorLayout::packed) check_packed(view, fail);
    if (view.layout != TensorLayout::row_major && view.layout != TensorLayout::rotated &&
        view.layout != TensorLayout::packed)
        throw Error(Status::unsupported, "%s: tensor %.*s: layout %s is not read by this version", source,
                    static_cast<int>(view.name.size()), view.name.data(), name_of(view.layout));
    if (bytes != r.bytes) throw fail("bytes: its type and dimensions imply another size");
    if (!checked_round_up(position, layout::tensor_alignment, start) || start != r.offset)
        throw fail("offset: expected it right after the tensor before, rounded up to 64");
    const uint64_t payload_end = bytes_.size() - layout::end_padding;
    if (!checked_add(start, bytes, end) || end > payload_end) throw fail("reaches beyond the payload");
    view.bytes = bytes_.subspan(r.offset, r.bytes);
    position = end;
    return view;
}

void DirectoryParser::read_tensors() {
    const SectionView& view =
        section(layout::Section::tensors, layout::max_tensors, sizeof(layout::TensorRecord));
    file_.tensors_.reserve(view.count);
    uint64_t position = header_.payload_offset;
    for (uint64_t i = 0; i < view.count; ++i)
        file_.tensors_.push_back(read_tensor(record<layout::TensorRecord>(view, i), i, position));
    uint64_t end = 0;
    if (!checked_round_up(position, layout::tensor_alignment, end) ||
        end + layout::end_padding != bytes_.size())
        throw Error(Status::bad_model,
                    "%s: end: expected %llu bytes after the last tensor at %llu, found a file of %zu",
                    file_.source_, wide(layout::end_padding), wide(position), bytes_.size());
}

}  // namespace espalier
