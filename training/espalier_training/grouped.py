"""Products of tokens with the matrix of their own group: tokens sorted by group, one call for all groups.

On Hopper GPUs in bfloat16 this is PyTorch's grouped product; elsewhere a loop over the groups, which is its definition.
"""
from __future__ import annotations

import torch


class _Reorder(torch.autograd.Function):
    """x[order] for a permutation: the gradient is a gather too, where indexing would add with atomics."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, gradient):
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse), None, None


class Groups:
    """Tokens sorted by group. group: [T] of 0..groups-1."""

    def __init__(self, group: torch.Tensor, groups: int):
        self.order = torch.argsort(group, stable=True)
        self.inverse = torch.empty_like(self.order)
        self.inverse[self.order] = torch.arange(len(group), device=group.device)
        self.sorted_group = group[self.order]
        counts = torch.zeros(groups, dtype=torch.long, device=group.device)
        counts.index_add_(0, group, torch.ones_like(group))
        self.ends = counts.cumsum(0).to(torch.int32)

    def sort(self, x: torch.Tensor) -> torch.Tensor:
        return _Reorder.apply(x, self.order, self.inverse)

    def unsort(self, x: torch.Tensor) -> torch.Tensor:
        return _Reorder.apply(x, self.inverse, self.order)

    def multiply(self, x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """x [T, A] in sorted order, matrices [G, A, B] -> [T, B]: each token times its group's matrix."""
        if x.is_cuda and x.dtype == torch.bfloat16 and hasattr(torch, "_grouped_mm"):
            return torch._grouped_mm(x, matrices, offs=self.ends)
        ends = self.ends.tolist()
        return torch.cat([x[a:b] @ m for a, b, m in zip([0] + ends, ends, matrices)])


def rows_of(group: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """table[group] ([T] and [G, A] -> [T, A]) as a product with indicators: its gradient is a product, not atomics."""
    indicators = torch.zeros(len(group), len(table), dtype=table.dtype, device=group.device)
    indicators.scatter_(1, group[:, None], 1)
    return indicators @ table
