// Activations, in place. gelu_erf: x/2 (1 + erf(x/sqrt 2)) (arXiv 1606.08415, the exact form).
#pragma once

#include <cstddef>

#include "base/types.h"

namespace espalier {

// values: [count] float32.
using ActivationKernel = void (*)(Activation activation, float* values, size_t count);

}  // namespace espalier
