#include "kernels/cpu/isa.h"

#if defined(ESPALIER_X86)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <array>
#include <cstdlib>

namespace espalier {
namespace {

constexpr std::array all{Isa::scalar, Isa::neon, Isa::avx2, Isa::avx512};

struct Available {
    std::array<Isa, all.size()> isas{};
    size_t count = 0;
    Available() {
        for (const Isa isa : all) {
            if (isa_available(isa)) isas[count++] = isa;
        }
    }
};

#if defined(ESPALIER_X86)
// Clang 14's __builtin_cpu_supports does not know this one. Its registers are AVX's, asked for elsewhere.
bool has_f16c() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

// Whether the environment forbids an extension; read when the kernels are chosen.
[[maybe_unused]] bool is_masked(std::string_view extension) {
    const char* variable = std::getenv("ESPALIER_WITHOUT");
    std::string_view rest = variable != nullptr ? variable : "";
    while (!rest.empty()) {
        const size_t comma = rest.find(',');
        if (rest.substr(0, comma) == extension) return true;
        rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
    }
    return false;
}

#if defined(__aarch64__) && defined(__linux__)
// The kernel's word for it; the processor's registers are not a program's to read.
[[maybe_unused]] bool has_capability(unsigned long type, unsigned bit) {
    return (getauxval(type) & (1ul << bit)) != 0;
}
#endif

}  // namespace

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return "scalar";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::neon:
            return "neon";
    }
    return "unknown";
}

std::optional<Isa> isa_from_name(std::string_view name) {
    for (const Isa isa : all) {
        if (name == name_of(isa)) return isa;
    }
    return std::nullopt;
}

bool isa_available(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return true;
#if defined(ESPALIER_X86)
        // __builtin_cpu_supports reads CPUID and XGETBV: a system that does not save the registers counts as
        // without.
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl");
#endif
#if defined(ESPALIER_NEON)
        case Isa::neon:
            return true;  // part of every AArch64, and of the ARMv7 that we build for
#endif
        default:
            return false;
    }
}

bool cpu_has_bf16() {
#if defined(ESPALIER_X86)
    // Clang 14's __builtin_cpu_supports does not know this one. Leaf 7.1, EAX bit 5; the registers are
    // AVX-512's.
    unsigned a = 0, b = 0, c = 0, d = 0;
    return isa_available(Isa::avx512) && !is_masked("bf16") && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
           (a & (1u << 5)) != 0;
#else
    return false;
#endif
}

bool cpu_has_vnni() {
#if defined(ESPALIER_X86)
    return isa_available(Isa::avx512) && !is_masked("vnni") && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

bool cpu_has_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
    return !is_masked("dotprod") && has_capability(AT_HWCAP, 20);  // HWCAP_ASIMDDP
#else
    return false;
#endif
}

bool cpu_has_i8mm() {
#if defined(__aarch64__) && defined(__linux__)
    return cpu_has_dotprod() && !is_masked("i8mm") && has_capability(AT_HWCAP2, 13);  // HWCAP2_I8MM
#else
    return false;
#endif
}

bool cpu_has_arm_bf16() {
#if defined(__aarch64__) && defined(__linux__)
    return !is_masked("bf16") && has_capability(AT_HWCAP2, 14);  // HWCAP2_BF16
#else
    return false;
#endif
}

bool cpu_has_arm_fp16() {
#if defined(__aarch64__) && defined(__linux__)
    return has_capability(AT_HWCAP, 10);  // HWCAP_ASIMDHP
#else
    return false;
#endif
}

std::span<const Isa> available_isas() {
    static const Available available;
    return std::span(available.isas).first(available.count);
}

Isa best_isa() {
    return available_isas().back();
}

}  // namespace espalier
