// The dense product over packed panels; specification: gemm_scalar.cpp.
#pragma once

#include "kernels/dense/gemm.h"
#include "kernels/dense/tile-inl.h"

namespace espalier {
namespace {

template <class Arch>
inline void gemm_panels(const PackedDense& d, const float* x, size_t rows, size_t first_panel,
                        size_t last_panel, float* y) {
    for (size_t p = first_panel; p < last_panel; ++p) {
        const size_t start = p * panel_outputs;
        TileJob job;
        job.depth = d.inputs;
        job.b = d.weight + p * d.inputs * panel_outputs;
        job.b_stride = panel_outputs;
        job.bias = d.bias != nullptr ? d.bias + start : nullptr;
        job.columns = d.outputs - start < panel_outputs ? d.outputs - start : panel_outputs;
        multiply<Arch>(
            job, rows, [&](size_t r) { return x + r * d.inputs; },
            [&](size_t r) { return y + r * d.outputs + start; });
    }
}

}  // namespace
}  // namespace espalier
