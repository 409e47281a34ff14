// A model with attention removed and feed-forward layers fused (FFN Fusion, arXiv 2503.18908).
//
// Of a run of blocks without attention, x_(b+1) = x_b + F_b(n_b(x_b)) (equation 4), fusing makes
// X + F_1(n(X)) + F_2(n(X)) + … (equation 5): the approximation. That a sum of layers on one input is one
// wider layer is exact (theorem 3.1): up-projections stacked, down-projections side by side. So are trees:
// the trees of all layers are one forest. Parts that agree in kind, activation, gating, and trees in their
// depth, leaf width and rules too, become one; others stand beside each other in the block.
//
// Pre-norm: the block keeps the norm of the run's last layer, and each other layer's own scale and bias are
// folded into its weights (section 5.5 there): what it computes of X is what it computed of X before. The
// norm has to be one that can be divided by: where a scale is zero, the block gets a norm that only
// normalises and all layers are folded. Post-norm: layers read X as it stands, and the norm behind the last
// is behind the sum.
#pragma once

#include <memory>

#include "apps/fuse/plan.h"
#include "apps/fuse/source.h"

namespace espalier {

// The plan must fit the model (check_plan). Throws Error(unsupported) where a norm's bias would have to be
// folded into a gate, which has none.
std::unique_ptr<Import> fuse_model(const std::shared_ptr<const SourceModel>& source, const FusePlan& plan);

// The tensors of an import made so, ready for the writer: copied ones as they are, made ones in the precision
// that the source's blocks are stored in.
std::vector<TensorSource> store_fused(Import& import, const SourceModel& source);

}  // namespace espalier
