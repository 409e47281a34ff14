// The instruction sets that kernels are written for, and which of them this machine can run.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace espalier {

enum class Isa { scalar, avx2, avx512, neon };

const char* name_of(Isa isa);
std::optional<Isa> isa_from_name(std::string_view name);

// Compiled in, and supported by processor and operating system (which must save the wide registers).
bool isa_available(Isa isa);
// The fastest available one.
Isa best_isa();
// All available ones, slowest first: for differential tests.
std::span<const Isa> available_isas();

// ESPALIER_WITHOUT (vnni, bf16, dotprod, i8mm; several with commas between) in the environment: extensions
// that are not to be used though they are there.

// What some processors have beside AVX-512: products of bfloat16 pairs, and of 8-bit quads.
bool cpu_has_bf16();
bool cpu_has_vnni();

// What some processors have beside NEON: products of 8-bit quads; beside these, of small 8-bit matrices; of
// bfloat16 pairs and matrices.
bool cpu_has_dotprod();
bool cpu_has_i8mm();
bool cpu_has_arm_bf16();
// Half floats' arithmetic. Reported and not used: docs/arm.md says why.
bool cpu_has_arm_fp16();

}  // namespace espalier
