#include "kernels/cpu/kernel_table.h"

#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "kernels/cpu/scalar.h"
#if defined(ESPALIER_X86)
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/avx512bf16.h"
#include "kernels/cpu/avx512vnni.h"
#endif
#if defined(ESPALIER_NEON)
#include "kernels/cpu/neon.h"
#endif
#if defined(ESPALIER_DOTPROD)
#include "kernels/cpu/neondot.h"
#endif
#if defined(ESPALIER_MATRIX_PRODUCTS)
#include "kernels/cpu/neonbf16.h"
#include "kernels/cpu/neoni8mm.h"
#endif

namespace espalier {
namespace {

constexpr KernelTable scalar_table{Isa::scalar,
                                   scalar::activate,
                                   scalar::attention,
                                   scalar::cached_attention,
                                   scalar::cached_queries,
                                   nullptr,
                                   nullptr,
                                   scalar::gemm_f32,
                                   scalar::gemm_bf16,
                                   scalar::gemm_s8,
                                   scalar::leaf_forest_f32,
                                   scalar::leaf_forest_bf16,
                                   scalar::leaf_forest_s8,
                                   scalar::neuron_forest_f32,
                                   scalar::neuron_forest_bf16,
                                   scalar::neuron_forest_s8,
                                   scalar::norm,
                                   scalar::round,
                                   scalar::widen,
                                   scalar::add_widened,
                                   "float32",
                                   "32-bit"};
#if defined(ESPALIER_X86)
constexpr KernelTable avx2_table{Isa::avx2,
                                 avx2::activate,
                                 avx2::attention,
                                 avx2::cached_attention,
                                 avx2::cached_queries,
                                 nullptr,
                                 nullptr,
                                 avx2::gemm_f32,
                                 avx2::gemm_bf16,
                                 avx2::gemm_s8,
                                 avx2::leaf_forest_f32,
                                 avx2::leaf_forest_bf16,
                                 avx2::leaf_forest_s8,
                                 avx2::neuron_forest_f32,
                                 avx2::neuron_forest_bf16,
                                 avx2::neuron_forest_s8,
                                 avx2::norm,
                                 avx2::round,
                                 avx2::widen,
                                 avx2::add_widened,
                                 "float32 (vfmadd)",
                                 "16-bit (vpmaddwd)"};
constexpr KernelTable avx512_table{Isa::avx512,
                                   avx512::activate,
                                   avx512::attention,
                                   avx512::cached_attention,
                                   avx512::cached_queries,
                                   nullptr,
                                   avx512::attention_s8,
                                   avx512::gemm_f32,
                                   avx512::gemm_bf16,
                                   avx512::gemm_s8,
                                   avx512::leaf_forest_f32,
                                   avx512::leaf_forest_bf16,
                                   avx512::leaf_forest_s8,
                                   avx512::neuron_forest_f32,
                                   avx512::neuron_forest_bf16,
                                   avx512::neuron_forest_s8,
                                   avx512::norm,
                                   avx512::round,
                                   avx512::widen,
                                   avx512::add_widened,
                                   "float32 (vfmadd)",
                                   "16-bit (vpmaddwd)"};

// What this processor has beside the base set.
KernelTable complete_avx512_table() {
    KernelTable table = avx512_table;
    if (cpu_has_bf16()) {
        table.attention_bf16 = avx512bf16::attention;
        table.gemm_bf16 = avx512bf16::gemm_bf16;
        table.leaf_forest_bf16 = avx512bf16::leaf_forest_bf16;
        table.neuron_forest_bf16 = avx512bf16::neuron_forest_bf16;
        table.bf16_products = "pairs (vdpbf16ps)";
    }
    if (cpu_has_vnni()) {
        table.attention_s8 = avx512vnni::attention_s8;
        table.gemm_s8 = cpu_has_bf16() ? avx512vnni::gemm_s8_bf16 : avx512vnni::gemm_s8;
        table.leaf_forest_s8 = cpu_has_bf16() ? avx512vnni::leaf_forest_s8_bf16 : avx512vnni::leaf_forest_s8;
        table.neuron_forest_s8 = avx512vnni::neuron_forest_s8;
        table.s8_products = "quads (vpdpbusd)";
    }
    return table;
}
#endif
#if defined(ESPALIER_NEON)
constexpr KernelTable neon_table{Isa::neon,
                                 neon::activate,
                                 neon::attention,
                                 neon::cached_attention,
                                 neon::cached_queries,
                                 nullptr,
                                 nullptr,
                                 neon::gemm_f32,
                                 neon::gemm_bf16,
                                 neon::gemm_s8,
                                 neon::leaf_forest_f32,
                                 neon::leaf_forest_bf16,
                                 neon::leaf_forest_s8,
                                 neon::neuron_forest_f32,
                                 neon::neuron_forest_bf16,
                                 neon::neuron_forest_s8,
                                 neon::norm,
                                 neon::round,
                                 neon::widen,
                                 neon::add_widened,
                                 "float32 (fmla)",
                                 "16-bit (smull, sadalp)"};

// What this processor has beside the base set.
KernelTable complete_neon_table() {
    KernelTable table = neon_table;
#if defined(ESPALIER_DOTPROD)
    if (cpu_has_dotprod()) {
        table.gemm_s8 = neondot::gemm_s8;
        table.leaf_forest_s8 = neondot::leaf_forest_s8;
        table.neuron_forest_s8 = neondot::neuron_forest_s8;
        table.s8_products = "quads (sdot)";
    }
#endif
#if defined(ESPALIER_MATRIX_PRODUCTS)
    if (cpu_has_i8mm()) {
        table.gemm_s8 = neoni8mm::gemm_s8;
        table.leaf_forest_s8 = neoni8mm::leaf_forest_s8;
        table.s8_products = "matrices (smmla), quads (sdot)";
    }
    if (cpu_has_arm_bf16()) {
        table.gemm_bf16 = neonbf16::gemm_bf16;
        table.leaf_forest_bf16 = neonbf16::leaf_forest_bf16;
        table.neuron_forest_bf16 = neonbf16::neuron_forest_bf16;
        table.bf16_products = "matrices (bfmmla), pairs (bfdot)";
    }
#endif
    return table;
}
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
        case Isa::avx512: {
            static const KernelTable table = complete_avx512_table();
            return table;
        }
#endif
#if defined(ESPALIER_NEON)
        case Isa::neon: {
            static const KernelTable table = complete_neon_table();
            return table;
        }
#endif
        default:
            return scalar_table;
    }
}

}  // namespace espalier
