"""The parts that a feed-forward layer is a sum of, as PyTorch modules; names and shapes are those of docs/checkpoints.md.

Weights are kept in float32 and computed in the type of the input (bfloat16 on GPUs); leaf trees route in float32.
"""
from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .grouped import Groups, rows_of


@dataclass(frozen=True)
class PartSpec:
    """dense: width. leaf, neuron: trees, depth; leaf also width, the neurons of a leaf."""
    kind: str
    width: int = 0
    trees: int = 0
    depth: int = 0

    @property
    def nodes(self) -> int:
        """Tests (leaf) or neurons (neuron) of one tree."""
        return 2 ** (self.depth + (self.kind == "neuron")) - 1

    def active(self) -> float:
        """Neurons that a token computes, in multiply-adds of one in a dense layer (a test has no output row)."""
        return {"dense": float(self.width),
                "leaf": self.trees * (self.width + self.depth / 2),
                "neuron": float(self.trees * (self.depth + 1))}[self.kind]

    def stored(self) -> int:
        return {"dense": self.width, "leaf": self.trees * 2 ** self.depth * self.width,
                "neuron": self.trees * self.nodes}[self.kind]

    def config(self) -> dict:
        return {"dense": {"kind": "dense", "width": self.width},
                "leaf": {"kind": "leaf_forest", "trees": self.trees, "depth": self.depth, "leaf_width": self.width},
                "neuron": {"kind": "neuron_forest", "trees": self.trees, "depth": self.depth}}[self.kind]


def parse_parts(text: str) -> list[PartSpec]:
    """dense:W, leaf:K:D:L, neuron:K:D joined by +, or none (a bias only: leaf:1:0:0)."""
    if text == "none":
        return [PartSpec("leaf", 0, 1, 0)]
    parts = []
    for piece in text.split("+"):
        kind, *numbers = piece.split(":")
        wanted = {"dense": 1, "leaf": 3, "neuron": 2}.get(kind)
        if wanted is None or len(numbers) != wanted or not all(n.isdigit() for n in numbers):
            raise ValueError(f"parts {text!r}: expected dense:W, leaf:K:D:L or neuron:K:D, found {piece!r}")
        n = [int(v) for v in numbers]
        parts.append(PartSpec(kind, n[0]) if kind == "dense"
                     else PartSpec(kind, n[2] if kind == "leaf" else 0, n[0], n[1]))
        p = parts[-1]
        if (p.kind == "dense" and p.width == 0) or (p.kind != "dense" and p.trees == 0) or p.depth > 16:
            raise ValueError(f"parts {text!r}: expected at least one neuron or tree and a depth of at most 16, found {piece!r}")
    return parts


def spec_of(config: dict) -> PartSpec:
    kind = {"dense": "dense", "leaf_forest": "leaf", "neuron_forest": "neuron"}[config["kind"]]
    return PartSpec(kind, config.get("width", config.get("leaf_width", 0)), config.get("trees", 0), config.get("depth", 0))


class Linear(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Dense(nn.Module):
    def __init__(self, hidden: int, spec: PartSpec):
        super().__init__()
        self.spec = spec
        self.up, self.down = Linear(hidden, spec.width), Linear(spec.width, hidden)

    def forward(self, x: torch.Tensor, routes: list | None = None) -> torch.Tensor:
        """x [T, H] -> [T, H]. Leaves taken are appended to routes, [T, K] a forest."""
        return self.down(F.gelu(self.up(x)))


def descend(decisions: torch.Tensor, depth: int) -> torch.Tensor:
    """decisions [T, K, nodes], true goes right -> the node at level `depth` of each tree, in heap order: [T, K]."""
    node = torch.zeros(decisions.shape[:2], dtype=torch.long, device=decisions.device)
    for _ in range(depth):
        node = 2 * node + 1 + decisions.gather(2, node[..., None]).squeeze(2).long()
    return node


@functools.lru_cache(maxsize=None)
def _paths(depth: int, device: torch.device) -> torch.Tensor:
    """[nodes, leaves]: 1 where the way to a leaf goes right, -1 where it goes left, 0 where it does not pass."""
    nodes, leaves = 2 ** depth - 1, 2 ** depth
    paths = torch.zeros(nodes, leaves)
    for leaf in range(leaves):
        node = 0
        for level in reversed(range(depth)):
            right = leaf >> level & 1
            paths[node, leaf] = 1 if right else -1
            node = 2 * node + 1 + right
    return paths.to(device)


_DEEPEST_BY_PRODUCT = 8  # deeper, the product costs more than a GPU's kernel launches


def leaf_by_product(right: torch.Tensor, depth: int) -> torch.Tensor:
    """The leaf is where all decisions of its path agree: one product, where walking takes five small kernels a level."""
    kind = torch.float16 if right.is_cuda else torch.float32
    return ((right.to(kind) * 2 - 1) @ _paths(depth, right.device).to(kind)).argmax(2)


def leaf_of(right: torch.Tensor, depth: int) -> torch.Tensor:
    """Decisions [T, K, nodes] -> leaf, 0 .. 2^D - 1 [T, K]."""
    if right.is_cuda and depth <= _DEEPEST_BY_PRODUCT:
        return leaf_by_product(right, depth)
    return descend(right, depth) - (2 ** depth - 1)


class _Holder(nn.Module):
    """A module for the dots in a tensor's name."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Module):
                self.add_module(name, tensor)
            elif isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)


class LeafForest(nn.Module):
    """Trees whose leaves are small feed-forward layers. The nodes are buffers: they never learn by gradient."""

    def __init__(self, hidden: int, spec: PartSpec):
        super().__init__()
        self.spec = spec
        leaves = spec.trees * 2 ** spec.depth
        zeros = lambda *shape: nn.Parameter(torch.zeros(*shape))
        if spec.depth:
            self.node = _Holder(weight=torch.zeros(spec.trees * spec.nodes, hidden), threshold=torch.zeros(spec.trees * spec.nodes))
        down = _Holder(bias=zeros(leaves, hidden))
        if spec.width:
            down.register_parameter("weight", nn.Parameter(torch.randn(leaves, spec.width, hidden) * spec.width ** -0.5))
            up = _Holder(weight=nn.Parameter(torch.randn(leaves, spec.width, hidden) * hidden ** -0.5), bias=zeros(leaves, spec.width))
            self.leaf = _Holder(up=up, down=down)
        else:
            self.leaf = _Holder(down=down)

    def route(self, x: torch.Tensor) -> torch.Tensor:
        """Leaf of every tree, 0 .. 2^D - 1: [T, K]."""
        s = self.spec
        if s.depth == 0:
            return torch.zeros(len(x), s.trees, dtype=torch.long, device=x.device)
        with torch.no_grad():
            right = F.linear(x.float(), self.node.weight.float()) > self.node.threshold.float()
            return leaf_of(right.view(len(x), s.trees, s.nodes), s.depth)

    def forward(self, x: torch.Tensor, routes: list | None = None) -> torch.Tensor:
        s = self.spec
        leaf = self.route(x)
        if routes is not None:
            routes.append(leaf)
        y = 0
        for k in range(s.trees):
            y = y + self.tree(x, leaf[:, k], slice(k * 2 ** s.depth, (k + 1) * 2 ** s.depth))
        return y

    def tree(self, x: torch.Tensor, leaf: torch.Tensor, of: slice) -> torch.Tensor:
        down = self.leaf.down
        if self.spec.depth == 0 and self.spec.width == 0:
            return down.bias[of].to(x.dtype).expand_as(x)
        bias = rows_of(leaf, down.bias[of].to(x.dtype))
        if self.spec.width == 0:
            return bias
        groups = Groups(leaf, 2 ** self.spec.depth)
        up = self.leaf.up
        z = groups.multiply(groups.sort(x), up.weight[of].to(x.dtype).transpose(1, 2))
        a = F.gelu(z + rows_of(groups.sorted_group, up.bias[of].to(x.dtype)))
        return groups.unsort(groups.multiply(a, down.weight[of].to(x.dtype))) + bias


@functools.lru_cache(maxsize=None)
def _on_path(depth: int, device: torch.device) -> torch.Tensor:
    """[leaves, nodes, those of the last level among them]: 1 for every node that the way to a leaf visits."""
    visited = torch.zeros(2 ** depth, 2 ** (depth + 1) - 1)
    for leaf in range(2 ** depth):
        for level in range(depth + 1):
            visited[leaf, 2 ** level - 1 + (leaf >> (depth - level))] = 1
    return visited.to(device)


@functools.lru_cache(maxsize=None)
def _subtrees(top: int, depth: int, device: torch.device) -> torch.Tensor:
    """[2^top, 2^(depth+1)]: the nodes of the trees of `depth` that hang below `top` levels, in heap order. The last
    column only pads (a GPU's grouped product wants rows of 16 bytes)."""
    nodes = torch.zeros(2 ** top, 2 ** (depth + 1), dtype=torch.long)
    for tree in range(2 ** top):
        for level in range(depth + 1):
            first = 2 ** (top + level) - 1 + (tree << level)
            nodes[tree, 2 ** level - 1: 2 ** (level + 1) - 1] = torch.arange(first, first + 2 ** level)
    return nodes.to(device)


class NeuronForest(nn.Module):
    """UltraFastBERT's form (arXiv 2311.10770): every node of the path is a neuron. Trained as published: nodes are computed
    and a mask keeps the path, so only visited nodes learn, and decisions carry no gradient.

    Deep trees are computed in two steps: the upper levels for all tokens, then each token only what hangs below the node
    it came to, tokens of one such subtree together: 126 neurons of a tree of depth 11 instead of 4,095."""

    _DEEPEST_AT_ONCE = 6

    def __init__(self, hidden: int, spec: PartSpec):
        super().__init__()
        self.spec = spec
        rows = spec.trees * spec.nodes
        uniform = lambda bound, *shape: nn.Parameter((torch.rand(*shape) * 2 - 1) * bound)
        self.add_module("in", _Holder(weight=uniform(hidden ** -0.5, rows, hidden), bias=uniform(hidden ** -0.5, rows)))
        self.out = _Holder(weight=uniform(((spec.depth + 1) * spec.trees) ** -0.5, rows, hidden),
                           bias=nn.Parameter(torch.zeros(hidden)))

    def forward(self, x: torch.Tensor, routes: list | None = None) -> torch.Tensor:
        s = self.spec
        if s.depth > self._DEEPEST_AT_ONCE:
            pieces = [self.in_two_steps(x, slice(k * s.nodes, (k + 1) * s.nodes)) for k in range(s.trees)]
            y, leaf = sum(y for y, _ in pieces), torch.stack([leaf for _, leaf in pieces], 1)
        else:
            y, leaf = self.at_once(x)
        if routes is not None:
            routes.append(leaf)
        return y + self.out.bias.to(x.dtype)

    def at_once(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s, nodes = self.spec, getattr(self, "in")
        z = F.linear(x, nodes.weight.to(x.dtype), nodes.bias.to(x.dtype))
        leaf = leaf_of((z > 0).view(len(x), s.trees, s.nodes)[:, :, : 2 ** s.depth - 1], s.depth)
        mask = _on_path(s.depth, x.device)[leaf].to(x.dtype).view(len(x), -1)
        return (F.gelu(z) * mask) @ self.out.weight.to(x.dtype), leaf

    def in_two_steps(self, x: torch.Tensor, of: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """One tree, its rows `of` -> [T, H] without the bias, the leaf [T]."""
        nodes = getattr(self, "in")
        rows, biases, out = (w[of].to(x.dtype) for w in (nodes.weight, nodes.bias, self.out.weight))
        top = (self.spec.depth + 1) // 2
        below = self.spec.depth - top
        upper = 2 ** top - 1
        z = F.linear(x, rows[:upper], biases[:upper])
        subtree = leaf_of((z > 0)[:, None], top)[:, 0]
        y = (F.gelu(z) * _paths(top, x.device).abs().T[subtree].to(x.dtype)) @ out[:upper]

        groups = Groups(subtree, 2 ** top)
        members = _subtrees(top, below, x.device)
        by_subtree = lambda w: w.index_select(0, members.flatten()).unflatten(0, members.shape)
        z = groups.multiply(groups.sort(x), by_subtree(rows).transpose(1, 2))
        z = z + rows_of(groups.sorted_group, by_subtree(biases))
        leaf = leaf_of((z > 0)[:, None, : 2 ** below - 1], below)[:, 0]
        mask = F.pad(_on_path(below, x.device), (0, 1))[leaf].to(x.dtype)
        y = y + groups.unsort(groups.multiply(F.gelu(z) * mask, by_subtree(out)))
        return y, (groups.sorted_group * 2 ** below + leaf)[groups.inverse]


def make_part(hidden: int, spec: PartSpec) -> nn.Module:
    return {"dense": Dense, "leaf": LeafForest, "neuron": NeuronForest}[spec.kind](hidden, spec)


def operations_share(parts: list[PartSpec], dense_width: int) -> float:
    """Multiply-adds of a layer as a share of the dense layer's."""
    return sum(p.active() for p in parts) / dense_width
