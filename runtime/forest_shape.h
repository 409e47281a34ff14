// A part's trees as the kernels' forests have them: what both forms share.
#pragma once

#include "kernels/forest/leaf_forest.h"
#include "kernels/forest/neuron_forest.h"
#include "model_format/spec.h"

namespace espalier {

// Forest: LeafForest or NeuronForest.
template <class Forest>
Forest forest_shape(const PartSpec& spec, size_t hidden) {
    Forest forest;
    forest.hidden = hidden;
    forest.trees = spec.trees;
    forest.depth = spec.depth;
    forest.activation = spec.activation;
    forest.tie = spec.tie;
    return forest;
}

}  // namespace espalier
