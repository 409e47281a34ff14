"""Trees for PyTorch, on CPUs: two operators, the modules around them, and the modules they replace.

Both are for inference: no gradient passes, and a call that would need one says so. Float32 alone.

>>> layer.ffn = espalier.torch.NeuronForest.from_ultrafastbert(layer.ffn)       # UltraFastBERT's FFF
>>> net.fff = espalier.torch.LeafForest.from_fastfeedforward(net.fff, output_bias=True)   # the package's FFF
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ._espalier import Error, Forest

__all__ = ["LeafForest", "NeuronForest", "leaf_forest", "neuron_forest"]

ACTIVATIONS = {nn.GELU: "gelu_erf", nn.ReLU: "relu", nn.SiLU: "silu", nn.Tanh: "tanh", nn.Identity: "none"}

_operators = torch.library.Library("espalier", "DEF")
_operators.define(
    "neuron_forest(Tensor x, Tensor node_weight, Tensor down, Tensor? node_bias, Tensor? output_bias, "
    "str activation, bool zero_goes_right) -> Tensor"
)
_operators.define(
    "leaf_forest(Tensor x, Tensor node_weight, Tensor up, Tensor down, Tensor? node_bias, Tensor? up_bias, "
    "Tensor? output_bias, str activation, bool zero_goes_right) -> Tensor"
)


class _Prepared:
    """Forests by the tensors they were made of, which they do not keep alive; remade when one was changed."""

    def __init__(self, make: Callable[..., Forest]) -> None:
        self._make = make
        self._forests: dict[int, tuple[weakref.ref[Tensor], tuple[Any, ...], Forest]] = {}

    def __call__(self, weights: tuple[Optional[Tensor], ...], activation: str, zero_goes_right: bool) -> Forest:
        first = weights[0]
        assert first is not None
        state = (activation, zero_goes_right, *(w if w is None else (w.data_ptr(), w._version) for w in weights))
        found = self._forests.get(id(first))
        if found is not None and found[0]() is first and found[1] == state:
            return found[2]
        plain = [w if w is None else w.detach() for w in weights]
        made = self._make(*plain, activation=activation, zero_goes_right=zero_goes_right)
        key, forests = id(first), self._forests
        forests[key] = (weakref.ref(first, lambda _: forests.pop(key, None)), state, made)
        return made


_neurons, _leaves = _Prepared(Forest.neuron), _Prepared(Forest.leaf)


def _run(forest: Forest, x: Tensor) -> Tensor:
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    forest.run(x.detach().contiguous(), y, threads=torch.get_num_threads())
    return y


def _neuron_cpu(x, node_weight, down, node_bias, output_bias, activation, zero_goes_right):
    return _run(_neurons((node_weight, down, node_bias, output_bias), activation, zero_goes_right), x)


def _leaf_cpu(x, node_weight, up, down, node_bias, up_bias, output_bias, activation, zero_goes_right):
    weights = (node_weight, up, down, node_bias, up_bias, output_bias)
    return _run(_leaves(weights, activation, zero_goes_right), x)


def _like_x(x, *_):
    return torch.empty_like(x)


def _without_gradient(operator):
    """What autograd meets: a clear error where a gradient would be asked for, else the operator itself."""

    def call(*arguments):
        tensors = (a for a in arguments if isinstance(a, Tensor))
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            raise Error(
                "espalier's forests have no gradient: call them under torch.no_grad() or torch.inference_mode()"
            )
        below = torch._C._AutoDispatchBelowAutograd()
        if not hasattr(below, "__enter__"):  # PyTorch 1: in force while it lives
            return operator(*arguments)
        with below:
            return operator(*arguments)

    return call


for _name, _kernel in (("neuron_forest", _neuron_cpu), ("leaf_forest", _leaf_cpu)):
    _operators.impl(_name, _kernel, "CPU")
    _operators.impl(_name, _like_x, "Meta")
    _operators.impl(_name, _without_gradient(getattr(torch.ops.espalier, _name)), "Autograd")


def neuron_forest(
    x: Tensor,
    node_weight: Tensor,
    down: Tensor,
    node_bias: Optional[Tensor] = None,
    output_bias: Optional[Tensor] = None,
    activation: str = "gelu_erf",
    zero_goes_right: bool = False,
) -> Tensor:
    """y [..., hidden] of UltraFastBERT's trees; shapes as Forest.neuron has them. Weights are used where they lie."""
    return torch.ops.espalier.neuron_forest(x, node_weight, down, node_bias, output_bias, activation, zero_goes_right)


def leaf_forest(
    x: Tensor,
    node_weight: Tensor,
    up: Tensor,
    down: Tensor,
    node_bias: Optional[Tensor] = None,
    up_bias: Optional[Tensor] = None,
    output_bias: Optional[Tensor] = None,
    activation: str = "gelu_erf",
    zero_goes_right: bool = False,
) -> Tensor:
    """y [..., hidden] of fast feedforward trees; shapes as Forest.leaf has them.

    Leaves are packed at the first call, and again where a tensor was changed in place (not through .data).
    """
    return torch.ops.espalier.leaf_forest(
        x, node_weight, up, down, node_bias, up_bias, output_bias, activation, zero_goes_right
    )


def _activation_name(module: nn.Module) -> str:
    if isinstance(module, nn.GELU) and getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    name = ACTIVATIONS.get(type(module))
    if name is None:
        raise Error(f"activation: expected GELU, ReLU, SiLU, Tanh or Identity, found {module}")
    return name


class _Forest(nn.Module):
    """Weights as buffers, in the order of `operator`'s arguments behind x; with what a node does beside them."""

    operator: Callable[..., Tensor]
    weights: tuple[str, ...]

    def __init__(self, tensors: tuple[Optional[Tensor], ...], activation: str, zero_goes_right: bool) -> None:
        super().__init__()
        for name, tensor in zip(self.weights, tensors):
            self.register_buffer(name, None if tensor is None else tensor.detach().float().contiguous())
        self.activation, self.zero_goes_right = activation, zero_goes_right

    def forward(self, x: Tensor) -> Tensor:
        tensors = (getattr(self, name) for name in self.weights)
        return type(self).operator(x, *tensors, self.activation, self.zero_goes_right)


class NeuronForest(_Forest):
    """Trees of which every visited node is a neuron (arXiv 2311.10770), as buffers: for inference."""

    operator = staticmethod(neuron_forest)
    weights = ("node_weight", "down", "node_bias", "output_bias")

    def __init__(
        self,
        node_weight: Tensor,
        down: Tensor,
        node_bias: Optional[Tensor] = None,
        output_bias: Optional[Tensor] = None,
        activation: str = "gelu_erf",
        zero_goes_right: bool = False,
    ) -> None:
        super().__init__((node_weight, down, node_bias, output_bias), activation, zero_goes_right)

    @classmethod
    def from_ultrafastbert(cls, fff: nn.Module, zero_goes_right: bool = False) -> NeuronForest:
        """Of the released training code's FFF: `linear_in` (bias or none), `linear_out`, `parallel_size`, `n_nodes`.

        zero_goes_right: as fff_bmm.py of the release decides (>= 0); its fff.py has > 0.
        """
        trees, nodes = int(fff.parallel_size), int(fff.n_nodes)
        linear_in, linear_out = fff.linear_in, fff.linear_out
        if linear_in.in_features != linear_out.out_features:
            raise Error(f"FFF: expected equal widths, found {linear_in.in_features} in, {linear_out.out_features} out")
        hidden = linear_in.in_features
        return cls(
            linear_in.weight.reshape(trees, nodes, hidden),
            linear_out.weight.t().reshape(trees, nodes, hidden),
            None if linear_in.bias is None else linear_in.bias.reshape(trees, nodes),
            linear_out.bias,
            _activation_name(fff.activation),
            zero_goes_right,
        )


class LeafForest(_Forest):
    """Trees that end in a small layer (arXiv 2308.14711), as buffers: for inference."""

    operator = staticmethod(leaf_forest)
    weights = ("node_weight", "up", "down", "node_bias", "up_bias", "output_bias")

    def __init__(
        self,
        node_weight: Tensor,
        up: Tensor,
        down: Tensor,
        node_bias: Optional[Tensor] = None,
        up_bias: Optional[Tensor] = None,
        output_bias: Optional[Tensor] = None,
        activation: str = "gelu_erf",
        zero_goes_right: bool = False,
    ) -> None:
        super().__init__((node_weight, up, down, node_bias, up_bias, output_bias), activation, zero_goes_right)

    @classmethod
    def from_fastfeedforward(cls, fff: nn.Module, output_bias: bool) -> LeafForest:
        """Of the fastfeedforward package's FFF (0.2): `node_weights`, `node_biases`, `w1s`, `b1s`, `w2s`, `b2s`.

        Its two forward passes disagree: training_forward adds a leaf's output bias b2s, eval_forward leaves it out.
        output_bias says which is meant. Both take the right child where the sigmoid is at least 1/2.
        """
        if fff.w1s.shape[1] != fff.w2s.shape[2]:
            raise Error(f"FFF: expected equal widths, found {fff.w1s.shape[1]} in, {fff.w2s.shape[2]} out")
        return cls(
            fff.node_weights.unsqueeze(0),
            fff.w1s.transpose(1, 2).unsqueeze(0),
            fff.w2s.unsqueeze(0),
            fff.node_biases.reshape(1, -1),
            fff.b1s.unsqueeze(0),
            fff.b2s.unsqueeze(0) if output_bias else None,
            _activation_name(fff.activation),
            zero_goes_right=True,
        )
