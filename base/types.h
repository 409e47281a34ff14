// The few words that the file and the kernels share. Values are part of the file format: append, never
// renumber.
#pragma once

#include <cstdint>

namespace espalier {

enum class Activation : uint32_t { none = 0, gelu_erf = 1, gelu_tanh = 2, relu = 3, silu = 4, tanh = 5 };

// Where a tree's walk goes when a node's test value is exactly zero: right only if > 0, or if >= 0.
enum class TieRule : uint32_t { zero_goes_left = 0, zero_goes_right = 1 };

enum class TensorType : uint32_t { f32 = 1, f16 = 2, bf16 = 3, s8 = 4, u8 = 5, u32 = 6 };

constexpr uint64_t bytes_of(TensorType type) {
    switch (type) {
        case TensorType::f32:
        case TensorType::u32:
            return 4;
        case TensorType::f16:
        case TensorType::bf16:
            return 2;
        case TensorType::s8:
        case TensorType::u8:
            return 1;
    }
    return 0;
}

constexpr const char* name_of(TensorType type) {
    switch (type) {
        case TensorType::f32:
            return "f32";
        case TensorType::f16:
            return "f16";
        case TensorType::bf16:
            return "bf16";
        case TensorType::s8:
            return "s8";
        case TensorType::u8:
            return "u8";
        case TensorType::u32:
            return "u32";
    }
    return "unknown";
}

constexpr const char* name_of(Activation activation) {
    switch (activation) {
        case Activation::none:
            return "none";
        case Activation::gelu_erf:
            return "gelu_erf";
        case Activation::gelu_tanh:
            return "gelu_tanh";
        case Activation::relu:
            return "relu";
        case Activation::silu:
            return "silu";
        case Activation::tanh:
            return "tanh";
    }
    return "unknown";
}

constexpr const char* name_of(TieRule tie) {
    return tie == TieRule::zero_goes_left ? "zero goes left" : "zero goes right";
}

}  // namespace espalier
