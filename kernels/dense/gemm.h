// Our own dense product, one panel of packed weights at a time. Used by the native backend.
#pragma once

#include <cstddef>

namespace espalier {

// Weights are packed in panels of this many outputs: [panel][inputs][64], zero-filled at the end. 64 = four
// AVX-512, eight AVX2 or sixteen NEON vectors, so one packing serves every instruction set.
inline constexpr size_t panel_outputs = 64;

struct PackedDense {
    size_t inputs = 0, outputs = 0;
    const float* weight = nullptr;  // [panels, inputs, panel_outputs]
    const float* bias = nullptr;    // [panels * panel_outputs], or null

    size_t panels() const { return (outputs + panel_outputs - 1) / panel_outputs; }
};

// y[rows, outputs] = x[rows, inputs] W^T + b for the panels [first_panel, last_panel).
using GemmKernel = void (*)(const PackedDense& dense, const float* x, size_t rows, size_t first_panel,
                            size_t last_panel, float* y);

}  // namespace espalier
