// A model's weights on a CUDA device, in the precision of its arithmetic. Made once a model and device: the
// contexts that use it share it.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda/dense.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/forest.h"
#include "kernels/cuda/rows.h"
#include "runtime/model.h"

namespace espalier {

struct CudaDense {
    cuda::DenseShape shape;
    const void* weight = nullptr;  // null: there is no such layer
    const void* bias = nullptr;
    const float* scale = nullptr;  // of 8-bit rows; their bias is float32
};

struct CudaPart {
    const PartSpec* spec = nullptr;
    // Dense; the width rounded up to 8, or 16, with neurons that give nothing. Gated: `up` gives gates, not
    // yet activated, and behind them as many others.
    CudaDense up, down;
    cuda::LeafForest leaf_forest;
    cuda::NeuronForest neuron_forest;
    size_t forest = 0;  // its number among the model's forests
};

struct CudaBlock {
    CudaDense qkv, attention_out;
    cuda::Norm attention_norm, ffn_norm;
    std::vector<CudaPart> parts;
    // What attention, and what the parts give is bfloat16: where one layer writes it and a norm reads it.
    bool narrow_attention = false, narrow_parts = false;
};

class CudaModel {
   public:
    // Throws Error(unsupported) for what does not run on a GPU or on this one.
    CudaModel(const Model& model, const cuda::Device& device);
    CudaModel(const CudaModel&) = delete;
    CudaModel& operator=(const CudaModel&) = delete;

    // The one of this model and device, made if there is none. The model must outlive it.
    static std::shared_ptr<const CudaModel> of(const Model& model, int number);

    const cuda::Device& device() const { return device_; }
    const cuda::Embeddings& embeddings() const { return embeddings_; }
    const cuda::Norm& embedding_norm() const { return embedding_norm_; }  // without weight: none
    const cuda::Norm& final_norm() const { return final_norm_; }
    const CudaDense& output() const { return output_; }  // a decoder's; the vocabulary rounded up to 8
    const std::vector<CudaBlock>& blocks() const { return blocks_; }
    size_t bytes() const;  // on the device

   private:
    friend class CudaUpload;

    cuda::Device device_;
    std::vector<cuda::Buffer> buffers_;
    struct Unregister {
        void operator()(void* memory) const { cudaHostUnregister(memory); }
    };
    std::unique_ptr<void, Unregister> registered_;  // the mapped file, where the device reads it in place
    cuda::Embeddings embeddings_;
    cuda::Norm embedding_norm_, final_norm_;
    CudaDense output_;
    std::vector<CudaBlock> blocks_;
};

}  // namespace espalier
