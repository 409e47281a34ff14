#include "apps/layer_tokens.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "kernels/quantize/quantize.h"

namespace espalier {

// Adding 1.5 x 2^23 leaves no bits behind the point: rounds to nearest even without a call.
void round_to_s8(const float* row, float scale, int8_t* target, size_t count) {
    constexpr float magic = 12582912.0F;
    const float inverse = 1 / scale;
    for (size_t i = 0; i < count; ++i) {
        const float steps = std::min(std::max(row[i] * inverse, -127.0F), 127.0F);
        target[i] = static_cast<int8_t>(static_cast<int32_t>((steps + magic) - magic));
    }
}

TokenBuffer::TokenBuffer(TensorType type, size_t hidden, size_t most, std::pmr::memory_resource* memory)
    : type_(type), hidden_(hidden), x_(most * hidden * bytes_of(type), memory), row_(hidden), base_(hidden) {
    if (type != TensorType::s8) return;
    static_ = HugeBlock(most * hidden, memory);
    scale_ = HugeBlock(most * sizeof(float), memory);
}

void TokenBuffer::fill(size_t count, size_t same_run, uint64_t& state) {
    constexpr float noise = 1e-4F;  // far below the margin of nearly every node
    for (size_t t = 0; t < count; ++t) {
        for (float& value : row_)
            value = random_normal(state);
        if (same_run > 1) {
            if (t % same_run == 0) base_ = row_;
            for (size_t i = 0; i < hidden_; ++i)
                row_[i] = base_[i] + noise * row_[i];
        }
        store(t);
    }
}

void TokenBuffer::store(size_t t) {
    if (type_ == TensorType::f32) {
        std::memcpy(x_.as<float>() + t * hidden_, row_.data(), hidden_ * sizeof(float));
        return;
    }
    if (type_ == TensorType::bf16) {
        uint16_t* target = x_.as<uint16_t>() + t * hidden_;
        for (size_t i = 0; i < hidden_; ++i)
            target[i] = bfloat_from_float(row_[i]);
        return;
    }
    const float scale = row_scale(row_.data(), hidden_);
    scale_.as<float>()[t] = scale;
    round_to_s8(row_.data(), scale, x_.as<int8_t>() + t * hidden_, hidden_);
    round_to_s8(row_.data(), static_token_scale, static_.as<int8_t>() + t * hidden_, hidden_);
}

void TokenBuffer::copy(const TokenBuffer& other, size_t from, size_t to) {
    const size_t bytes = hidden_ * bytes_of(type_);
    std::memcpy(x_.data() + to * bytes, other.x_.data() + from * bytes, bytes);
    if (type_ != TensorType::s8) return;
    std::memcpy(static_.data() + to * bytes, other.static_.data() + from * bytes, bytes);
    scale_.as<float>()[to] = other.scale_.as<float>()[from];
}

void TokenBuffer::widen(size_t t, bool with_static_scale, float* target) const {
    for (size_t i = 0; i < hidden_; ++i) {
        const size_t place = t * hidden_ + i;
        switch (type_) {
            case TensorType::bf16:
                target[i] = float_from_bfloat(x_.as<uint16_t>()[place]);
                break;
            case TensorType::s8:
                target[i] = with_static_scale
                                ? static_token_scale * static_cast<float>(static_.as<int8_t>()[place])
                                : scale_.as<float>()[t] * static_cast<float>(x_.as<int8_t>()[place]);
                break;
            default:
                target[i] = x_.as<float>()[place];
        }
    }
}

Tokens TokenBuffer::tokens(size_t count) const {
    const bool s8 = type_ == TensorType::s8;
    return {x_.data(), s8 ? scale_.as<float>() : nullptr, s8 ? static_.data() : x_.data(), count,
            hidden_ * bytes_of(type_)};
}

}  // namespace espalier
