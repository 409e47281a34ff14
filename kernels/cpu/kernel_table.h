// One table of kernels, by name, filled once: the block loop calls through it and never asks again which
// machine it is on.
#pragma once

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/dense/gemm.h"
#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"
#include "kernels/norm/norm.h"
#include "kernels/quantize/quantize.h"

namespace espalier {

struct KernelTable {
    Isa isa;
    ActivationKernel activate;
    AttentionKernel attention;
    GemmKernel gemm;
    LeafForestKernel leaf_forest;
    NeuronForestKernel neuron_forest;
    NormKernel norm;
    WidenKernel widen;
};

// The table of an available instruction set. Throws Error(unsupported) that names those there are.
const KernelTable& kernel_table(Isa isa);

}  // namespace espalier
