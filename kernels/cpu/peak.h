// The most that this processor does: arithmetic without any memory, and reads without arithmetic. What a
// roofline is made of. One thread; callers run one a core.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"
#include "kernels/cpu/isa.h"

namespace espalier {

struct PeakKernels {
    // Independent multiply-adds in registers. Returns how many were done.
    uint64_t (*multiply_add)(uint64_t rounds) = nullptr;  // null: this processor has no such instruction
    // Loads every byte. The value returned depends on all of them. bytes: a multiple of 512.
    uint64_t (*read)(const void* source, size_t bytes) = nullptr;
};

// type: f32, bf16 or s8. Both null for an instruction set without wide instructions of its own.
PeakKernels peak_kernels(Isa isa, TensorType type);

}  // namespace espalier
