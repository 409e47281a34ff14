#include "model_format/writer.h"

#include <cstring>
#include <map>
#include <memory>
#include <new>

#include "base/checked.h"
#include "base/error.h"
#include "model_format/hash.h"
#include "model_format/layout.h"
#include "model_format/reader.h"
#include "model_format/replaced_file.h"
#include "model_format/schema.h"

namespace espalier {
namespace {

using Bytes = std::vector<std::byte>;

uint64_t bytes_of_source(const TensorSource& tensor) {
    uint64_t bytes = bytes_of(tensor.type);
    for (const uint64_t dimension : tensor.dimensions) {
        if (!checked_multiply(bytes, dimension, bytes))
            throw Error(Status::bad_model, "tensor %s: its size overflows", tensor.name.c_str());
    }
    return bytes;
}

// What the reader would refuse is not written.
void check_tensor(const TensorNeed& need, const TensorSource& tensor, const char* path) {
    const auto fail = [&](const char* what) {
        return Error(Status::bad_model, "%s: tensor %s: %s", path, tensor.name.c_str(), what);
    };
    if (!shape_fits(need, tensor.dimensions)) throw fail("its shape is not this architecture's");
    if (!layout_fits(need, tensor.layout)) throw fail("its layout does not fit what it is used for");
    if (!type_fits(need.role, tensor.type)) throw fail("its type does not fit what it is used for");
    if (tensor.layout != TensorLayout::row_major && tensor.type != TensorType::s8)
        throw fail("expected s8 for a layout that is turned");
    if ((tensor.type == TensorType::s8) != (tensor.scales != TensorScales::none))
        throw fail("expected scales for s8, and for no other type");
}

void check_scale(const TensorSource& tensor, const TensorSource& scale, const char* path) {
    const uint64_t columns = tensor.dimensions.back();
    const uint64_t count = tensor.scales == TensorScales::per_row ? bytes_of_source(tensor) / columns
                                                                  : columns;  // s8: a byte each
    if (scale.type != TensorType::f32 || scale.scales != TensorScales::none ||
        bytes_of_source(scale) != count * sizeof(float))
        throw Error(Status::bad_model, "%s: tensor %s: expected %llu f32", path, scale.name.c_str(),
                    static_cast<unsigned long long>(count));
}

// The schema's order, each scale behind its tensor. Leftovers are an error: nothing is dropped in silence.
std::vector<TensorSource> in_file_order(const ModelSpec& spec, std::vector<TensorSource> tensors,
                                        const char* path) {
    std::map<std::string, TensorSource*, std::less<>> by_name;
    for (TensorSource& tensor : tensors) {
        if (!by_name.emplace(tensor.name, &tensor).second)
            throw Error(Status::bad_model, "%s: tensor %s: given twice", path, tensor.name.c_str());
    }
    std::vector<TensorSource> ordered;
    const auto take = [&](const std::string& name) {
        const auto place = by_name.find(name);
        if (place == by_name.end())
            throw Error(Status::bad_model, "%s: tensor %s: missing", path, name.c_str());
        ordered.push_back(std::move(*place->second));
        by_name.erase(place);
    };
    for (const TensorNeed& need : tensors_of(spec)) {
        take(need.name.text);
        check_tensor(need, ordered.back(), path);
        if (ordered.back().scales == TensorScales::none) continue;
        take(std::string(need.name.text) + ".scale");
        check_scale(ordered[ordered.size() - 2], ordered.back(), path);
    }
    if (!by_name.empty())
        throw Error(Status::bad_model, "%s: tensor %s: not part of this architecture", path,
                    by_name.begin()->first.c_str());
    return ordered;
}

// The directory, built section by section.
class DirectoryBuilder {
   public:
    explicit DirectoryBuilder(const ModelSpec& spec) : spec_(spec) {}

    // Absolute tensor offsets depend on the directory's length, which does not depend on them: built twice.
    Bytes build(const std::vector<TensorSource>& tensors, uint64_t payload_offset) {
        strings_.clear();
        const auto model = model_records();
        const auto blocks = block_records();
        const auto parts = part_records();
        const auto heads = head_records();
        std::vector<layout::StringRecord> labels;
        for (const auto label : spec_.labels)
            labels.push_back(string(label));
        const auto records = tensor_records(tensors, payload_offset);
        Bytes directory(7 * sizeof(layout::SectionRecord));
        table_ = 0;
        add(directory, layout::Section::model, model);
        add(directory, layout::Section::blocks, blocks);
        add(directory, layout::Section::parts, parts);
        add(directory, layout::Section::heads, heads);
        add(directory, layout::Section::labels, labels);
        add(directory, layout::Section::tensors, records);
        add(directory, layout::Section::strings, strings_);
        return directory;
    }

   private:
    layout::StringRecord string(std::string_view text) {
        const layout::StringRecord record{static_cast<uint32_t>(strings_.size()),
                                          static_cast<uint32_t>(text.size())};
        strings_.insert(strings_.end(), text.begin(), text.end());
        if (strings_.size() > layout::max_string_bytes)
            throw Error(Status::bad_model, "strings: expected at most %u bytes in all",
                        layout::max_string_bytes);
        return record;
    }

    std::vector<layout::ModelRecord> model_records() {
        const ModelSpec& s = spec_;
        const TokenizerSpec& t = s.tokenizer;
        layout::ModelRecord r{};
        r.family = static_cast<uint32_t>(s.family);
        r.hidden = s.hidden;
        r.vocabulary = s.vocabulary;
        r.max_positions = s.max_positions;
        r.token_types = s.token_types;
        r.norm = static_cast<uint32_t>(s.norm);
        r.norm_placement = static_cast<uint32_t>(s.norm_placement);
        r.norm_epsilon = s.norm_epsilon;
        r.flags = s.flags;
        r.positions = static_cast<uint32_t>(s.positions);
        r.position_scale = s.position_scale;
        r.embedding_scale = s.embedding_scale;
        r.rope_theta = s.rope_theta;
        r.rope_dimensions = s.rope_dimensions;
        r.rope_pairing = static_cast<uint32_t>(s.rope_pairing);
        for (size_t i = 0; i < s.rope_scaling.size(); ++i)
            r.rope_scaling[i] = s.rope_scaling[i];
        r.pooling = static_cast<uint32_t>(s.pooling);
        r.logit_scale = s.logit_scale;
        r.tokenizer = static_cast<uint32_t>(t.kind);
        r.tokenizer_flags = t.flags;
        r.max_tokens = t.max_tokens;
        r.max_word_characters = t.max_word_characters;
        const int32_t special[8] = {t.unknown, t.cls, t.sep, t.pad, t.mask, t.begin, t.end, -1};
        std::memcpy(r.special_tokens, special, sizeof(special));
        r.continuation = string(t.continuation);
        r.name = string(s.name);
        r.origin = string(s.origin);
        r.licence = string(s.licence);
        r.producer = string(s.producer);
        return {r};
    }

    std::vector<layout::BlockRecord> block_records() const {
        std::vector<layout::BlockRecord> records;
        for (const BlockSpec& b : spec_.blocks) {
            records.push_back({b.flags,
                               b.heads,
                               b.kv_heads,
                               b.head_dimension,
                               b.first_part,
                               b.part_count,
                               b.attention_scale,
                               b.window,
                               {}});
        }
        return records;
    }

    std::vector<layout::PartRecord> part_records() const {
        std::vector<layout::PartRecord> records;
        for (const PartSpec& p : spec_.parts) {
            records.push_back({static_cast<uint32_t>(p.kind),
                               static_cast<uint32_t>(p.activation),
                               p.flags,
                               static_cast<uint32_t>(p.tie),
                               p.width,
                               p.trees,
                               p.depth,
                               p.leaf_width,
                               static_cast<uint32_t>(p.routes_on),
                               {}});
        }
        return records;
    }

    std::vector<layout::HeadRecord> head_records() {
        std::vector<layout::HeadRecord> records;
        for (const HeadSpec& h : spec_.heads) {
            records.push_back({string(h.name),
                               static_cast<uint32_t>(h.kind),
                               h.flags,
                               static_cast<uint32_t>(h.activation),
                               static_cast<uint32_t>(h.pooling),
                               h.dense_width,
                               h.outputs,
                               h.first_label,
                               h.label_count,
                               {}});
        }
        return records;
    }

    std::vector<layout::TensorRecord> tensor_records(const std::vector<TensorSource>& tensors,
                                                     uint64_t position) {
        std::vector<layout::TensorRecord> records;
        for (const TensorSource& tensor : tensors) {
            layout::TensorRecord r{};
            r.name = string(tensor.name);
            r.type = static_cast<uint32_t>(tensor.type);
            r.layout = static_cast<uint32_t>(tensor.layout);
            r.scales = static_cast<uint32_t>(tensor.scales);
            r.rank = static_cast<uint32_t>(tensor.dimensions.size());
            if (r.rank < 1 || r.rank > 4)
                throw Error(Status::bad_model, "tensor %s: expected a rank of 1 to 4, found %u",
                            tensor.name.c_str(), r.rank);
            for (size_t axis = 0; axis < 4; ++axis)
                r.dimensions[axis] = axis < r.rank ? tensor.dimensions[axis] : 1;
            if (tensor.layout == TensorLayout::packed) {
                r.layout_arguments[0] = packed_columns;
                r.layout_arguments[1] = packed_values;
            }
            r.offset = round_up(position, layout::tensor_alignment);
            r.bytes = bytes_of_source(tensor);
            position = r.offset + r.bytes;
            records.push_back(r);
        }
        return records;
    }

    template <typename Record>
    void add(Bytes& directory, layout::Section kind, const std::vector<Record>& records) {
        directory.resize(round_up(directory.size(), layout::record_alignment));
        const layout::SectionRecord section{static_cast<uint32_t>(kind), sizeof(Record), records.size(),
                                            sizeof(layout::FileHeader) + directory.size()};
        std::memcpy(directory.data() + table_, &section, sizeof(section));
        table_ += sizeof(section);
        const auto* bytes = reinterpret_cast<const std::byte*>(records.data());
        directory.insert(directory.end(), bytes, bytes + records.size() * sizeof(Record));
    }

    const ModelSpec& spec_;
    std::vector<char> strings_;
    size_t table_ = 0;
};

// Where the bytes go: the payload in order, then the finished header over the space left for it.
class Sink {
   public:
    virtual ~Sink() = default;
    virtual void reserve(uint64_t file_bytes) = 0;
    virtual void append(std::span<const std::byte> bytes) = 0;
    virtual void rewrite_start(std::span<const std::byte> bytes) = 0;
};

class FileSink : public Sink {
   public:
    explicit FileSink(const char* path) : file_(path) {}
    void reserve(uint64_t) override {}
    void append(std::span<const std::byte> bytes) override { file_.append(bytes); }
    void rewrite_start(std::span<const std::byte> bytes) override { file_.rewrite_start(bytes); }
    void finish() { file_.finish(); }

   private:
    ReplacedFile file_;
};

class MemorySink : public Sink {
   public:
    void reserve(uint64_t file_bytes) override { bytes_ = std::make_unique<AlignedBytes>(file_bytes); }
    void append(std::span<const std::byte> bytes) override {
        std::memcpy(bytes_->span().data() + position_, bytes.data(), bytes.size());
        position_ += bytes.size();
    }
    void rewrite_start(std::span<const std::byte> bytes) override {
        std::memcpy(bytes_->span().data(), bytes.data(), bytes.size());
    }
    AlignedBytes take() { return std::move(*bytes_); }

   private:
    std::unique_ptr<AlignedBytes> bytes_;
    uint64_t position_ = 0;
};

void append_zeros(Sink& sink, StreamingHash& hash, uint64_t count) {
    static const std::byte zeros[4096]{};
    while (count > 0) {
        const auto piece = std::span(zeros).first(count < sizeof(zeros) ? count : sizeof(zeros));
        sink.append(piece);
        hash.add(piece);
        count -= piece.size();
    }
}

void write(Sink& sink, const char* path, const ModelSpec& spec, std::vector<TensorSource> tensors,
           const WriteProgress& progress) {
    check_spec(spec, path);
    const auto ordered = in_file_order(spec, std::move(tensors), path);
    DirectoryBuilder builder(spec);
    const uint64_t directory_bytes = builder.build(ordered, 0).size();
    const uint64_t payload = round_up(sizeof(layout::FileHeader) + directory_bytes, layout::tensor_alignment);
    const Bytes directory = builder.build(ordered, payload);
    uint64_t end = payload;
    for (const TensorSource& tensor : ordered)
        end = round_up(end, layout::tensor_alignment) + bytes_of_source(tensor);
    const uint64_t file_bytes = round_up(end, layout::tensor_alignment) + layout::end_padding;

    sink.reserve(file_bytes);
    StreamingHash ignored, hash;
    append_zeros(sink, ignored, sizeof(layout::FileHeader));
    sink.append(directory);
    append_zeros(sink, ignored, payload - sizeof(layout::FileHeader) - directory_bytes);
    uint64_t position = payload;
    for (const TensorSource& tensor : ordered) {
        append_zeros(sink, hash, round_up(position, layout::tensor_alignment) - position);
        const Bytes data = tensor.data();
        if (data.size() != bytes_of_source(tensor))
            throw Error(Status::bad_model, "%s: tensor %s: expected %llu bytes, got %zu", path,
                        tensor.name.c_str(), static_cast<unsigned long long>(bytes_of_source(tensor)),
                        data.size());
        sink.append(data);
        hash.add(data);
        position = round_up(position, layout::tensor_alignment) + data.size();
        if (progress) progress(position - payload, end - payload);
    }
    append_zeros(sink, hash, file_bytes - position);

    layout::FileHeader header{};
    std::memcpy(header.magic, layout::magic, sizeof(layout::magic));
    header.version_major = layout::version_major;
    header.version_minor = layout::version_minor;
    header.header_bytes = sizeof(header);
    header.file_bytes = file_bytes;
    header.directory_bytes = directory_bytes;
    header.payload_offset = payload;
    header.directory_hash = hash_bytes(directory);
    header.payload_hash = hash.value();
    header.section_count = 7;
    header.header_hash = hash_bytes(std::as_bytes(std::span(&header, 1)));
    sink.rewrite_start(std::as_bytes(std::span(&header, 1)));
}

}  // namespace

void write_model(const char* path, const ModelSpec& spec, std::vector<TensorSource> tensors,
                 const WriteProgress& progress) {
    FileSink sink(path);
    write(sink, path, spec, std::move(tensors), progress);
    sink.finish();
}

void AlignedBytes::Free::operator()(std::byte* data) const {
    ::operator delete[](data, std::align_val_t{layout::tensor_alignment});
}

AlignedBytes::AlignedBytes(size_t bytes)
    : data_(new (std::align_val_t{layout::tensor_alignment}) std::byte[bytes]), bytes_(bytes) {}

AlignedBytes model_to_memory(const ModelSpec& spec, std::vector<TensorSource> tensors) {
    MemorySink sink;
    write(sink, "model in memory", spec, std::move(tensors), {});
    return sink.take();
}

}  // namespace espalier
