#include "kernels/activation/activation-inl.h"

#include "kernels/cpu/neon.h"

namespace espalier::neon {

using Arch = NeonArch;

void activate(Activation activation, float* values, size_t count) {
    activate_values<Arch>(activation, values, count);
}

}  // namespace espalier::neon
