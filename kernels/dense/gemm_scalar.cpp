// The specification of the dense product.
#include "kernels/cpu/scalar.h"

namespace espalier::scalar {

void gemm(const PackedDense& d, const float* x, size_t rows, size_t first_panel, size_t last_panel,
          float* y) {
    for (size_t r = 0; r < rows; ++r) {
        for (size_t p = first_panel; p < last_panel; ++p) {
            const float* panel = d.weight + p * d.inputs * panel_outputs;
            float sum[panel_outputs];
            for (size_t o = 0; o < panel_outputs; ++o)
                sum[o] = d.bias != nullptr ? d.bias[p * panel_outputs + o] : 0.0F;
            for (size_t i = 0; i < d.inputs; ++i) {
                for (size_t o = 0; o < panel_outputs; ++o)
                    sum[o] += x[r * d.inputs + i] * panel[i * panel_outputs + o];
            }
            for (size_t o = 0; o < panel_outputs && p * panel_outputs + o < d.outputs; ++o)
                y[r * d.outputs + p * panel_outputs + o] = sum[o];
        }
    }
}

}  // namespace espalier::scalar
