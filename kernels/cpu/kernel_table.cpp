#include "kernels/cpu/kernel_table.h"

#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "kernels/cpu/scalar.h"
#if defined(ESPALIER_X86)
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#endif
#if defined(ESPALIER_NEON)
#include "kernels/cpu/neon.h"
#endif

namespace espalier {
namespace {

constexpr KernelTable scalar_table{Isa::scalar,  scalar::activate,    scalar::attention,
                                   scalar::gemm, scalar::leaf_forest, scalar::neuron_forest,
                                   scalar::norm, scalar::widen};
#if defined(ESPALIER_X86)
constexpr KernelTable avx2_table{Isa::avx2,         avx2::activate,      avx2::attention, avx2::gemm,
                                 avx2::leaf_forest, avx2::neuron_forest, avx2::norm,      avx2::widen};
constexpr KernelTable avx512_table{Isa::avx512,  avx512::activate,    avx512::attention,
                                   avx512::gemm, avx512::leaf_forest, avx512::neuron_forest,
                                   avx512::norm, avx512::widen};
#endif
#if defined(ESPALIER_NEON)
constexpr KernelTable neon_table{Isa::neon,         neon::activate,      neon::attention, neon::gemm,
                                 neon::leaf_forest, neon::neuron_forest, neon::norm,      neon::widen};
#endif

}  // namespace

const KernelTable& kernel_table(Isa isa) {
    if (!isa_available(isa)) {
        char names[64] = "";
        for (const Isa available : available_isas()) {
            std::snprintf(names + std::strlen(names), sizeof(names) - std::strlen(names), "%s%s",
                          names[0] != 0 ? ", " : "", name_of(available));
        }
        throw Error(Status::unsupported,
                    "instruction set %s: expected one that this machine and build have (%s)", name_of(isa),
                    names);
    }
    switch (isa) {
#if defined(ESPALIER_X86)
        case Isa::avx2:
            return avx2_table;
        case Isa::avx512:
            return avx512_table;
#endif
#if defined(ESPALIER_NEON)
        case Isa::neon:
            return neon_table;
#endif
        default:
            return scalar_table;
    }
}

}  // namespace espalier
