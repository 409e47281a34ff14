// What oneDNN is told of a dense layer, and the layer as it is kept: weights in the blocked format that
// oneDNN picks, rounded to the type of x.
#pragma once

#include <memory_resource>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "kernels/dense/dense.h"

namespace espalier::onednn {

struct alignas(64) Line {
    std::byte bytes[64];
};

constexpr size_t lines(size_t bytes) {
    return (bytes + sizeof(Line) - 1) / sizeof(Line);
}

class Layer final : public DenseLayer {
   public:
    // Throws dnnl::error, and Error(unsupported) where the processor has nothing fast for the shape's types.
    Layer(const DenseShape& shape, const float* weight, const float* bias, const dnnl::engine& engine,
          std::pmr::memory_resource* resource);
    size_t bytes() const override { return data_.size() * sizeof(Line); }

    dnnl::inner_product_forward::primitive_desc describe(dnnl::memory::dim rows,
                                                         const dnnl::engine& engine) const;
    const dnnl::memory& weights() const { return weights_; }
    // Our shape's bias, or what x's zero amounts to.
    bool has_bias() const { return has_bias_; }
    const dnnl::memory& bias() const { return bias_; }
    const dnnl::memory& scales() const { return scales_; }  // of 8-bit weights
    // Layers with the same number, shape and rows can share a primitive. oneDNN 2 makes the scales of 8-bit
    // weights part of a primitive.
    size_t number() const { return number_; }

   private:
    void quantise(const float* weight, const float* bias, const dnnl::engine& engine);
    void pack(dnnl::memory::data_type type, const void* weight, const dnnl::engine& engine);

    bool has_bias_;
    size_t number_ = 0;
    std::pmr::vector<Line> data_;  // packed weights, the bias, the scales; each on lines of its own
    dnnl::memory::desc description_;
    float *bias_data_ = nullptr, *scale_data_ = nullptr;
    dnnl::memory weights_, bias_, scales_;
};

}  // namespace espalier::onednn
