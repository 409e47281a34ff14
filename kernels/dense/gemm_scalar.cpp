// The specification of the dense product.
#include "kernels/cpu/scalar.h"

namespace espalier::scalar {

void gemm(const PackedDense& d, const float* x, size_t rows, size_t first_panel, size_t last_panel, float* y) {
    for (size_t r = 0; r < rows; ++r) {
        for (size_t o = first_panel * panel_outputs; o < last_panel * panel_outputs && o < d.outputs; ++o) {
            const float* column = d.weight + o / panel_outputs * d.inputs * panel_outputs + o % panel_outputs;
            float sum = d.bias != nullptr ? d.bias[o] : 0.0F;
            for (size_t i = 0; i < d.inputs; ++i) sum += x[r * d.inputs + i] * column[i * panel_outputs];
            y[r * d.outputs + o] = sum;
        }
    }
}

}  // namespace espalier::scalar
