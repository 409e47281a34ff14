// A file's tensors as float32 rows, whatever they are stored as.
#pragma once

#include <memory_resource>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "model_format/reader.h"

namespace espalier {

class TensorValues {
   public:
    TensorValues(const ModelFile& file, const KernelTable& kernels, std::pmr::memory_resource* memory)
        : file_(file), kernels_(kernels), scratch_(memory), unpacked_(memory) {}

    // Null where there are none.
    const float* scales_of(const TensorView& tensor) const;
    // The tensor in float32, [rows, row length]: in place where it is stored so, else widened into `target`.
    const float* widened(const TensorView& tensor, float* target, bool before_last = false);
    // For weights that are copied into another layout at once: valid until the next call. rotated: as 8-bit
    // layers multiply them; the file may have them so. before_last: the dimension that products sum over,
    // else the last. What the tensor before took of a mapped file is given back.
    const float* passing(const char* name, bool rotated = false, bool before_last = false);
    // Gives back what the last of them took.
    void release();

   private:
    const std::byte* unpacked(const TensorView& tensor, bool before_last);

    const ModelFile& file_;
    const KernelTable& kernels_;
    std::pmr::vector<float> scratch_;
    std::pmr::vector<int8_t> unpacked_;
    const TensorView* passed_ = nullptr;
};

}  // namespace espalier
