"""Oblique, balanced trees over vectors, and leaves and nodes fitted to what a dense layer computes there.

x [N, H] is what the layer reads, y [N, H] what is to be computed; all float32.
"""
from __future__ import annotations

import torch

from .parts import Dense, LeafForest, NeuronForest, PartSpec

_POWER_ITERATIONS = 30


def _unit(v: torch.Tensor) -> torch.Tensor:
    return v / v.norm().clamp(min=1e-12)


def _top_left_singular(c: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    v = torch.randn(c.shape[0], generator=generator).to(c)
    for _ in range(_POWER_ITERATIONS):
        v = _unit(c @ (c.T @ v))
    return v


def split_direction(x: torch.Tensor, y: torch.Tensor, how: str, generator: torch.Generator) -> torch.Tensor:
    """The direction along which tokens are parted, of length 1.

    crosscov: top left singular vector of the cross-covariance of x and y. regression: what predicts the first principal
    component of y best. input-pca: the first principal component of x. random: for comparison."""
    if how == "random":
        return _unit(torch.randn(x.shape[1], generator=generator).to(x))
    x = x - x.mean(0)
    if how == "input-pca":
        return _top_left_singular(x.T @ x / len(x), generator)
    y = y - y.mean(0)
    cross = x.T @ y / len(x)
    if how == "crosscov":
        return _top_left_singular(cross, generator)
    component = _top_left_singular(y.T @ y / len(y), generator)
    covariance = x.T @ x / len(x)
    ridge = 0.01 * covariance.diagonal().mean() * torch.eye(len(covariance)).to(x)
    return _unit(torch.linalg.solve(covariance + ridge, cross @ component))


def middle(z: torch.Tensor) -> torch.Tensor:
    """Between the two middle values, so that halves are equal and no value lies on the threshold."""
    lower, upper = (len(z) - 1) // 2, len(z) // 2
    ordered = z.sort().values
    return (ordered[lower] + ordered[min(upper, len(z) - 1)]) / 2 if len(z) % 2 == 0 else ordered[lower] - 1e-6


def grow_nodes(x: torch.Tensor, y: torch.Tensor, depth: int, how: str, generator: torch.Generator):
    """Directions [2^D - 1, H], thresholds [2^D - 1] in heap order, and the leaf of every x."""
    directions = torch.zeros(2 ** depth - 1, x.shape[1], device=x.device)
    thresholds = torch.zeros(2 ** depth - 1, device=x.device)
    node = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for n in range(2 ** depth - 1):
        here = (node == n).nonzero().squeeze(1)
        if len(here) < 2:
            raise ValueError(f"grow.tokens: node {n} of {2 ** depth - 1} sees {len(here)} tokens; expected at least 2")
        directions[n] = split_direction(x[here], y[here], how, generator)
        z = x[here] @ directions[n]
        thresholds[n] = middle(z)
        node[here] = 2 * n + 1 + (z > thresholds[n]).long()
    return directions, thresholds, node - (2 ** depth - 1)


def least_squares(a: torch.Tensor, y: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
    """w [A, H], b [H] for y = a w + b. The ridge is a share of a's mean variance."""
    mean_a, mean_y = a.mean(0), y.mean(0)
    centred = a - mean_a
    gram = centred.T @ centred / len(a)
    strength = ridge * gram.diagonal().mean() + 1e-9
    w = torch.linalg.solve(gram + strength * torch.eye(len(gram)).to(a), centred.T @ (y - mean_y) / len(a))
    return w, mean_y - mean_a @ w


class DenseRows:
    """The dense layer that is replaced: neuron j is row j of up and column j of down."""

    def __init__(self, layer: Dense):
        self.up, self.up_bias = layer.up.weight.detach().float(), layer.up.bias.detach().float()
        self.down = layer.down.weight.detach().float().T

    def activations(self, x: torch.Tensor, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        return torch.nn.functional.gelu(x @ self.up[rows].T + self.up_bias[rows])

    def strongest(self, x: torch.Tensor, y: torch.Tensor, count: int, how: str, skip: torch.Tensor | None) -> torch.Tensor:
        """variance: of what a neuron adds. explained: of y, by the neuron alone."""
        a = self.activations(x)
        a = a - a.mean(0)
        variance = (a * a).mean(0)
        if how == "variance":
            score = variance * (self.down ** 2).sum(1)
        else:
            score = ((a.T @ (y - y.mean(0)) / len(a)) ** 2).sum(1) / variance.clamp(min=1e-12)
        if skip is not None:
            score[skip] = -1
        return score.topk(count).indices


def _fit_rows(rows: DenseRows, chosen: torch.Tensor, x: torch.Tensor, y: torch.Tensor, fit: str, ridge: float):
    """Output rows and bias of the chosen neurons for these tokens."""
    a = rows.activations(x, chosen)
    if fit == "copy":
        down = rows.down[chosen]
        return down, (y - a @ down).mean(0)
    return least_squares(a, y, ridge)


@torch.no_grad()
def grow_dense(part: Dense, rows: DenseRows, x: torch.Tensor, y: torch.Tensor, options) -> torch.Tensor:
    """The strongest neurons of the layer, for every token. Returns which they are."""
    chosen = rows.strongest(x, y, part.spec.width, options.select, None)
    down, bias = _fit_rows(rows, chosen, x, y, options.fit, options.ridge)
    part.up.weight.copy_(rows.up[chosen])
    part.up.bias.copy_(rows.up_bias[chosen])
    part.down.weight.copy_(down.T)
    part.down.bias.copy_(bias)
    return chosen


def split_of_tree(how: str, tree: int) -> str:
    """The input's principal component would part every tree of a forest alike: later ones look at what is still missing."""
    return "crosscov" if how == "input-pca" and tree else how


@torch.no_grad()
def grow_leaf_forest(part: LeafForest, rows: DenseRows, x, y, taken: torch.Tensor | None, options, generator) -> None:
    """Each tree in turn takes what those before it left over. taken: neurons of a dense part beside the trees."""
    s = part.spec
    leaves = 2 ** s.depth
    for k in range(s.trees):
        leaf = torch.zeros(len(x), dtype=torch.long, device=x.device)
        if s.depth:
            directions, thresholds, leaf = grow_nodes(x, y, s.depth, split_of_tree(options.split, k), generator)
            part.node.weight[k * s.nodes:(k + 1) * s.nodes] = directions
            part.node.threshold[k * s.nodes:(k + 1) * s.nodes] = thresholds
        left = y.clone()
        for g in range(leaves):
            here = (leaf == g).nonzero().squeeze(1)
            i = k * leaves + g
            if s.width == 0:
                part.leaf.down.bias[i] = y[here].mean(0)
            else:
                chosen = rows.strongest(x[here], y[here], s.width, options.select, taken)
                down, bias = _fit_rows(rows, chosen, x[here], y[here], options.fit, options.ridge)
                part.leaf.up.weight[i], part.leaf.up.bias[i] = rows.up[chosen], rows.up_bias[chosen]
                part.leaf.down.weight[i], part.leaf.down.bias[i] = down, bias
                left[here] -= rows.activations(x[here], chosen) @ down
            left[here] -= part.leaf.down.bias[i]
        y = left


@torch.no_grad()
def grow_neuron_forest(part: NeuronForest, x, y, options, generator) -> None:
    """Warm start of UltraFastBERT's form: a node's neuron looks along the split direction of what is still missing, its
    bias parts its tokens in halves, its output row is fitted to what is missing."""
    s = part.spec
    nodes = getattr(part, "in")
    part.out.bias.copy_(y.mean(0))
    left = y - part.out.bias
    for k in range(s.trees):
        node = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for n in range(s.nodes):
            here = (node == n).nonzero().squeeze(1)
            i = k * s.nodes + n
            if len(here) < 2:
                raise ValueError(f"grow.tokens: node {n} of {s.nodes} sees {len(here)} tokens; expected at least 2")
            w = split_direction(x[here], left[here], split_of_tree(options.split, k), generator)
            z = x[here] @ w
            w = w * 2 / z.std().clamp(min=1e-6)  # GELU is neither nearly linear nor nearly a step on inputs of deviation 2
            z = x[here] @ w
            threshold = middle(z)
            a = torch.nn.functional.gelu(z - threshold)
            nodes.weight[i], nodes.bias[i] = w, -threshold
            row = (a[:, None] * left[here]).sum(0) / ((a * a).sum() * (1 + options.ridge)).clamp(min=1e-9)
            part.out.weight[i] = row
            left[here] -= a[:, None] * row
            if n < s.nodes // 2:
                node[here] = 2 * n + 1 + (z > threshold).long()


def grow_parts(parts: list, dense: Dense, x: torch.Tensor, y: torch.Tensor, options, generator) -> None:
    """Fits the parts of one layer, one after the other, each to what those before it left over."""
    rows = DenseRows(dense)
    taken = None
    for part in parts:
        kind: PartSpec = part.spec
        if kind.kind == "dense":
            taken = grow_dense(part, rows, x, y, options)
        elif kind.kind == "leaf":
            grow_leaf_forest(part, rows, x, y, taken, options, generator)
        elif not options.cold:
            grow_neuron_forest(part, x, y, options, generator)
        with torch.no_grad():
            y = y - part(x)
