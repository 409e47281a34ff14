"""One forest on the caller's arrays."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy

from ._espalier import Forest

Array = TypeVar("Array")


def forest(x: Array, trees: Forest, *, out: Array | None = None, threads: int = 1) -> Array:
    """What the trees make of x: float32 [..., hidden], of the same kind and shape as x.

    x is a NumPy array, a PyTorch tensor, or any other array of the CPU that speaks DLPack and has its library's
    `empty_like`. It is read where it lies, and so is `out` written, if given: nothing is copied, and nothing
    converted, so that x has to be float32 and contiguous. No gradient passes: see espalier.torch for modules.
    """
    y: Any = _empty_like(x) if out is None else out
    trees.run(_plain(x), _plain(y), threads=threads)
    return y


def _plain(x: Any) -> Any:
    # DLPack does not pass tensors on that ask for a gradient.
    return x.detach() if hasattr(x, "detach") else x


def _empty_like(x: Any) -> Any:
    if isinstance(x, numpy.ndarray):
        return numpy.empty_like(x)
    if type(x).__module__.split(".")[0] == "torch":
        import torch

        return torch.empty_like(x.detach())
    raise TypeError(f"x: expected a NumPy array or a PyTorch tensor where out is not given, found {type(x).__name__}")
