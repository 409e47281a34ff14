// How fast rotary positions turn (arXiv 2104.09864), as they are or scaled for longer windows.
#pragma once

#include <cstddef>

#include "model_format/spec.h"

namespace espalier {

// The angle by which pair i of a head turns from one position to the next: theta^(-2i / n), n the dimensions
// that rotate. Scaled by a factor alone: divided by it. Scaled as Llama 3.1's: divided where a whole turn
// takes more than original / low positions, as it is below original / high, and in between a mean of both
// that is linear in original / turn.
double rotary_step(const ModelSpec& spec, size_t i);

}  // namespace espalier
