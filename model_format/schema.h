// Which tensors a model of a given spec consists of: their names and shapes, in one place. The importers
// fill this list, the writer refuses a file that lacks one, the reader one that has too few, too many or
// misshapen ones.
//
//   embeddings.word [vocabulary, hidden], embeddings.position [positions, hidden], embeddings.type [types,
//   hidden] embeddings.norm.weight|bias, final_norm.weight|bias [hidden] blocks.B.attention.qkv.weight [query
//   + 2 kv width, hidden], .bias; blocks.B.attention.out.weight [hidden, query width], .bias
//   blocks.B.attention.norm.weight|bias, blocks.B.ffn.norm.weight|bias [hidden]
//   blocks.B.parts.P.…  (P counts within the block)
//     dense:  up.weight [width, hidden], gate.weight (gated), up.bias [width], down.weight [hidden, width],
//     down.bias [hidden] leaf:   node.weight [trees, nodes, hidden], node.threshold [trees, nodes],
//     leaf.up.weight
//             [trees, leaves, leaf width, hidden], leaf.gate.weight (gated), leaf.up.bias [trees, leaves,
//             leaf width], leaf.down.weight [trees, leaves, leaf width, hidden], leaf.bias [trees, leaves,
//             hidden]
//     neuron: in.weight [trees, nodes, hidden], gate.weight (gated), in.bias [trees, nodes],
//             out.weight [trees, nodes, hidden], out.bias [hidden]
//   heads.H.dense.weight [dense width, hidden], .bias; heads.H.out.weight [outputs, dense width or hidden],
//   .bias output.weight [vocabulary, hidden] (decoders, unless tied) tokenizer.offsets u32 [vocabulary + 1],
//   tokenizer.bytes u8 [n], tokenizer.merges u32 [n, 4] (BPE: left, right, both in one, rank: the lowest of a
//   text is merged first, of equal ones the leftmost) X.scale f32: the scales of X, where it has any
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "model_format/spec.h"

namespace espalier {

// A name of the schema, built without memory of its own: the longest is under 64 characters.
struct TensorName {
    char text[80];
    operator std::string_view() const { return text; }  // NOLINT(google-explicit-constructor)
};
TensorName tensor_name(const char* format, ...) __attribute__((format(printf, 1, 2)));
TensorName part_tensor(uint64_t block, uint64_t part, const char* suffix);

enum class TensorRole {
    weight,
    vector,
    vocabulary
};  // weight: may be f16, bf16, s8; vector: floats; vocabulary: u8, u32

// Along which dimension a tensor may be turned (TensorLayout::rotated): none; its last one; or the one
// before, where that is what products sum over (rows of neurons that are added up).
enum class Rotation { none, last, before_last };

struct TensorNeed {
    TensorName name;
    TensorRole role = TensorRole::weight;
    uint32_t rank = 0;
    std::array<uint64_t, 4> dimensions{1, 1, 1, 1};  // 0: any (tokenizer.bytes)
    Rotation rotation = Rotation::none;
};

// All tensors of the model in file order, scales not included. `spec` must have passed check_spec.
std::pmr::vector<TensorNeed> tensors_of(const ModelSpec& spec,
                                        std::pmr::memory_resource* memory = std::pmr::get_default_resource());

// Whether a tensor of this shape and type is what is needed. Reader and writer ask the same.
bool shape_fits(const TensorNeed& need, std::span<const uint64_t> dimensions);
bool type_fits(TensorRole role, TensorType type);
bool layout_fits(const TensorNeed& need, TensorLayout layout);
// Whether panels hold the tensor's matrices without filling, so that its size stays what its shape says.
bool may_be_packed(const TensorNeed& need);

}  // namespace espalier
