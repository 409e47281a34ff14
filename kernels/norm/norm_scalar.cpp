// The specification of the norms.
#include <cmath>

#include "kernels/cpu/scalar.h"

namespace espalier::scalar {

void norm(const NormWeights& n, const float* x, const float* residual, float* y, const RoundedRows& rounded,
          size_t tokens) {
    for (size_t t = 0; t < tokens; ++t, x += n.hidden, y += n.hidden) {
        float sum = 0;
        for (size_t i = 0; i < n.hidden; ++i) {
            y[i] = residual != nullptr ? x[i] + residual[t * n.hidden + i] : x[i];
            sum += y[i];
        }
        const float mean = n.rms ? 0.0F : sum / static_cast<float>(n.hidden);
        float squares = 0;
        for (size_t i = 0; i < n.hidden; ++i)
            squares += (y[i] - mean) * (y[i] - mean);
        const float scale = 1.0F / std::sqrt(squares / static_cast<float>(n.hidden) + n.epsilon);
        for (size_t i = 0; i < n.hidden; ++i) {
            const float normed = (y[i] - mean) * scale * n.weight[i];
            y[i] = n.bias != nullptr ? normed + n.bias[i] : normed;
        }
        if (rounded.type != TensorType::f32)
            round(rounded.type, true, y, 1, n.hidden, rounded.rows + t * n.hidden * bytes_of(rounded.type),
                  rounded.type == TensorType::s8 ? rounded.scale + t : nullptr);
    }
}

}  // namespace espalier::scalar
