// Products in 8 bits on tensor cores: what design.md's 8-bit type says, symmetric, exact int32 sums, one
// scale a row of each factor. Compute capability 8.0 and above. All launches go to a stream and return at
// once.
#pragma once

#include "base/types.h"
#include "kernels/cuda/forest.h"

namespace espalier::cuda {

// Rows rounded to 8 bits: scale = absmax / 127, to nearest even. A row with a value that is not finite has
// scale NaN and zeros; one of nothing above 1e-35 has zeros.
struct RoundedRows {
    const void* x = nullptr;  // [rows, columns] float32, or bfloat16
    bool narrow = false;      // bfloat16
    size_t rows = 0, columns = 0;
    bool rotated = false;  // turned first (kernels/quantize/rotate.h)
    // A row's `columns` values may be followed by those of neurons that leaves share: turned among
    // themselves, rounded with the same scale.
    size_t shared_columns = 0;
    bool shared_rotated = false;
    // Multiplied, after that, with row leaf[order[r] * stride] of factors [.., columns], and with
    // shared_factors [shared_columns]; or null.
    const float *factors = nullptr, *shared_factors = nullptr;
    const uint32_t *order = nullptr, *leaf = nullptr;
    size_t stride = 1;
    int8_t* y = nullptr;     // [rows, all columns up to a multiple of 16], filled with zeros
    float* scale = nullptr;  // [rows]
};
void round_rows(const RoundedRows& call, cudaStream_t stream);
inline constexpr size_t widest_rounded_row = 12288;  // lies in shared memory

// y = act(a b^T * scales + bias), row by row.
struct ByteProduct {
    const int8_t* a = nullptr;                        // [rows, all of the depth]
    const float* a_scale = nullptr;                   // [rows], or null
    const int8_t* b = nullptr;                        // [columns, depth], or so for each leaf
    const float *b_scale = nullptr, *bias = nullptr;  // [columns], or so for each leaf; or null
    uint32_t rows = 0, columns = 0, depth = 0;        // columns: a multiple of 4; depth: of 16
    // What leaves share: more columns, behind those of the leaf, or more of the depth.
    const int8_t* shared_b = nullptr;  // [shared columns, depth] or [columns, shared depth]
    const float *shared_b_scale = nullptr, *shared_bias = nullptr;  // [shared columns]
    uint32_t shared_columns = 0, shared_depth = 0;
    // Where rows have leaves: tiles of them. Rows of a, or of y, are those that `order` names, others as they
    // come.
    const LeafTile* tiles = nullptr;
    size_t most_tiles = 0;
    bool few = false;  // tiles of fewest_tile_tokens
    const uint32_t* order = nullptr;
    bool gathers = false, scatters = false;
    Activation activation = Activation::none;
    void* y = nullptr;    // [rows, all columns] float32, or bfloat16
    bool narrow = false;  // bfloat16
    bool accumulate = false;
};
void multiply(const ByteProduct& product, cudaStream_t stream);

}  // namespace espalier::cuda
