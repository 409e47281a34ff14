// The Espalier model file (.esp), version 1: its bytes, from the first to the last.
//
//   0             FileHeader        128 bytes
//   header_bytes  directory         SectionRecord[section_count], then the sections they name, in order:
//                                     model    1 x ModelRecord     what the network is
//                                     blocks   n x BlockRecord     one a transformer block, in order
//                                     parts    n x PartRecord      the FFN parts of all blocks, in order
//                                     heads    n x HeadRecord      named heads on the pooled vector
//                                     labels   n x StringRecord    the labels of all heads, in order
//                                     tensors  n x TensorRecord    sorted by position
//                                     strings  UTF-8 bytes         what StringRecords point into; all of them
//                                                                  together are no longer than this
//   payload_offset  tensors         each at a multiple of 64, in the order of their records; gaps are zeros
//                   end padding     64 KiB of zeros, so that a kernel may load or prefetch whole vectors past
//                                   the last row, and so that no page size (Arm: up to 64 KiB) shares a
//                                   tensor's last page with another file
//   file_bytes
//
// All integers and floats are little-endian; every section starts at a multiple of 8 and every record has
// its natural alignment, so a little-endian machine reads the mapped bytes in place.
//
// Growth. The minor version rises when records grow at their end or new section kinds appear; a reader of
// the same major version skips what it does not know (record_bytes says how long a record is). The major
// version rises when old readers would give wrong answers; they refuse. Reserved fields are zero.
//
// Integrity. header_hash covers the header (with that field as zero), directory_hash the whole directory:
// both are checked whenever a file is opened. payload_hash covers payload_offset..file_bytes, padding
// included: checked by `espalier verify` and by the verify option of the API. All are XXH3, 64 bits, seed 0.
//
// The vocabulary is stored as tensors (tokenizer.offsets u32 [n+1], tokenizer.bytes u8), so that one rule
// covers everything in the payload. Tensor names and shapes: model_format/schema.h.
#pragma once

#include <cstdint>

namespace espalier::layout {

inline constexpr char magic[8] = {'E', 'S', 'P', 'A', 'L', 'I', 'E', 'R'};
inline constexpr uint16_t version_major = 1;
inline constexpr uint16_t version_minor = 0;
inline constexpr uint64_t tensor_alignment = 64;  // a cache line; a whole AVX-512 vector
inline constexpr uint64_t end_padding = 64 * 1024;
inline constexpr uint64_t record_alignment = 8;

// Caps: far above any model that these trees serve, far below anything that could exhaust a reader.
inline constexpr uint32_t max_blocks = 4096;
inline constexpr uint32_t max_parts = 65536;
inline constexpr uint32_t max_heads = 256;
inline constexpr uint32_t max_labels = 65536;
inline constexpr uint32_t max_tensors = 1u << 20;
inline constexpr uint32_t max_string_bytes = 1u << 26;
inline constexpr uint32_t max_sections = 64;
inline constexpr uint32_t max_record_bytes = 4096;
inline constexpr uint32_t max_dimension = 1u << 24;  // hidden, vocabulary, width, positions, …
inline constexpr uint32_t max_depth = 24;
// Of scores. Kernels pad a row with the lowest number there is, whose exponential must still be zero.
inline constexpr float least_attention_scale = 1e-30F;

struct FileHeader {
    char magic[8];
    uint16_t version_major;
    uint16_t version_minor;
    uint32_t header_bytes;  // where the directory starts; at least sizeof(FileHeader), a multiple of 8
    uint64_t file_bytes;    // the whole file: truncation is seen at once
    uint64_t directory_bytes;
    uint64_t payload_offset;  // the end of the directory, rounded up to 64
    uint64_t directory_hash;
    uint64_t payload_hash;
    uint64_t header_hash;
    uint32_t section_count;
    uint32_t reserved[15];
};
static_assert(sizeof(FileHeader) == 128);

enum class Section : uint32_t { model = 1, blocks, parts, heads, labels, tensors, strings };

// Sections stand in ascending order of kind, each at the end of the one before, rounded up to 8.
struct SectionRecord {
    uint32_t kind;
    uint32_t record_bytes;  // the stride; 1 for strings
    uint64_t count;
    uint64_t offset;  // from the start of the file
};
static_assert(sizeof(SectionRecord) == 24);

struct StringRecord {
    uint32_t offset;  // from the start of the strings section
    uint32_t bytes;
};
static_assert(sizeof(StringRecord) == 8);

// Enumerations are stored as uint32; their values are model_format/spec.h's.
struct ModelRecord {
    uint32_t family;
    uint32_t hidden;
    uint32_t vocabulary;
    uint32_t max_positions;
    uint32_t token_types;
    uint32_t norm;
    uint32_t norm_placement;
    float norm_epsilon;
    uint32_t flags;  // ModelFlag
    uint32_t positions;
    float position_scale;
    float embedding_scale;
    float rope_theta;
    uint32_t rope_dimensions;
    uint32_t rope_pairing;
    float rope_scaling[4];  // factor, low, high, original positions; see spec.h
    uint32_t pooling;
    float logit_scale;
    uint32_t tokenizer;
    uint32_t tokenizer_flags;  // TokenizerFlag
    uint32_t max_tokens;       // a sequence's limit, special tokens included
    uint32_t max_word_characters;
    int32_t special_tokens[8];  // unknown, cls, sep, pad, mask, begin, end, unused; -1: none
    StringRecord continuation;  // "##"
    StringRecord name;
    StringRecord origin;   // where the model came from
    StringRecord licence;  // SPDX identifier and notice
    StringRecord producer;
    uint32_t reserved[13];
};
static_assert(sizeof(ModelRecord) == 224);

struct BlockRecord {
    uint32_t flags;  // BlockFlag
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dimension;
    uint32_t first_part;
    uint32_t part_count;
    float attention_scale;  // what scores are multiplied by
    uint32_t window;        // sliding attention window in tokens; 0: none
    uint32_t reserved[8];
};
static_assert(sizeof(BlockRecord) == 64);

struct PartRecord {
    uint32_t kind;
    uint32_t activation;
    uint32_t flags;  // PartFlag
    uint32_t tie;
    uint32_t width;  // dense
    uint32_t trees;
    uint32_t depth;
    uint32_t leaf_width;
    uint32_t routes_on;
    uint32_t reserved[7];
};
static_assert(sizeof(PartRecord) == 64);

struct HeadRecord {
    StringRecord name;
    uint32_t kind;
    uint32_t flags;  // HeadFlag
    uint32_t activation;
    uint32_t pooling;
    uint32_t dense_width;  // 0: no hidden layer
    uint32_t outputs;
    uint32_t first_label;
    uint32_t label_count;  // 0 or outputs
    uint32_t reserved[6];
};
static_assert(sizeof(HeadRecord) == 64);

struct TensorRecord {
    StringRecord name;
    uint32_t type;
    uint32_t layout;
    uint32_t scales;
    uint32_t rank;  // 1 to 4; unused dimensions are 1
    uint64_t dimensions[4];
    uint64_t offset;  // from the start of the file
    uint64_t bytes;
    uint32_t layout_arguments[4];  // what a layout other than row_major needs to be read; else 0
};
static_assert(sizeof(TensorRecord) == 88);

}  // namespace espalier::layout
