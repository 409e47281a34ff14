"""The operators and modules for PyTorch against the published definitions."""

import pytest

torch = pytest.importorskip("torch")

import espalier  # noqa: E402
import espalier.torch as trees  # noqa: E402
from published import LeafTree, MaskedTrees  # noqa: E402


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 9, 256])
@pytest.mark.parametrize("shape", [(768, 11, 1), (64, 4, 16), (30, 0, 3)])
@torch.no_grad()
def test_ultrafastbert(shape, tokens, bias):
    torch.manual_seed(1)
    published = MaskedTrees(*shape, bias=bias)
    ours = trees.NeuronForest.from_ultrafastbert(published)
    x = torch.randn(tokens, shape[0])
    sure = published.margins(x) > 1e-4
    assert sure.float().mean() > 0.5
    assert (ours(x) - published(x))[sure].abs().max() < 1e-5
    assert ours(x.view(1, tokens, -1)).shape == (1, tokens, shape[0])


@pytest.mark.parametrize("tokens", [1, 9, 256])
@pytest.mark.parametrize("depth", [0, 1, 6])
@torch.no_grad()
def test_fast_feedforward(tokens, depth):
    torch.manual_seed(2)
    published = LeafTree(96, 12, depth)
    x = torch.randn(tokens, 96)
    sure = published.walk(x)[1] > 1e-4
    for bias in (True, False):
        ours = trees.LeafForest.from_fastfeedforward(published, output_bias=bias)
        assert (ours(x) - published(x, output_bias=bias))[sure].abs().max() < 1e-5
    assert (published.soft(x, hard=True) - published(x))[sure].abs().max() < 1e-5


@torch.no_grad()
def test_the_package_s_own_module():
    package = pytest.importorskip("fastfeedforward")
    torch.manual_seed(3)
    theirs = package.FFF(input_width=48, leaf_width=8, output_width=48, depth=5).eval()
    x = torch.randn(64, 48)
    for expected, bias in ((theirs(x), False), (theirs.training_forward(x, use_hard_decisions=True), True)):
        ours = trees.LeafForest.from_fastfeedforward(theirs, output_bias=bias)
        assert (ours(x) - expected).abs().max() < 1e-5


def test_gradients_are_refused():
    published = MaskedTrees(16, 3, 1)
    ours = trees.NeuronForest.from_ultrafastbert(published)
    with pytest.raises(espalier.Error, match="no gradient"):
        ours(torch.randn(2, 16, requires_grad=True))
    with pytest.raises(espalier.Error, match="no gradient"):  # the operator itself, and by a weight
        weight = ours.node_weight.clone().requires_grad_()
        torch.ops.espalier.neuron_forest(torch.randn(2, 16), weight, ours.down, None, None, "relu", True)
    assert not ours(torch.randn(2, 16)).requires_grad
    with torch.no_grad():
        ours(torch.randn(2, 16, requires_grad=True))


@torch.no_grad()
def test_changed_weights_are_seen():
    published = LeafTree(32, 4, 3)
    ours = trees.LeafForest.from_fastfeedforward(published, output_bias=True)
    x = torch.randn(20, 32)
    before = ours(x)
    ours.down.mul_(2)
    ours.output_bias.mul_(2)
    assert (ours(x) - 2 * before).abs().max() < 1e-5
    other = trees.LeafForest.from_fastfeedforward(LeafTree(32, 4, 3), output_bias=True)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other(x), ours(x))


@torch.no_grad()
def test_tensors_without_copies():
    published = MaskedTrees(32, 3, 1)
    ours = trees.NeuronForest.from_ultrafastbert(published)
    forest = espalier.Forest.neuron(ours.node_weight, ours.down, ours.node_bias)
    x = torch.randn(5, 32)
    y = espalier.forest(x, forest)
    assert isinstance(y, torch.Tensor) and torch.equal(y, ours(x))
    out = torch.empty(5, 32)
    assert espalier.forest(x, forest, out=out) is out and torch.equal(out, y)


@torch.no_grad()
def test_in_a_compiled_graph():
    if not hasattr(torch, "compile"):
        pytest.skip("this PyTorch has no torch.compile")
    ours = trees.NeuronForest.from_ultrafastbert(MaskedTrees(32, 3, 1))
    net = torch.nn.Sequential(torch.nn.LayerNorm(32), ours)
    x = torch.randn(6, 32)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), net(x), atol=1e-6)


def test_other_widths_and_activations_are_refused():
    with pytest.raises(espalier.Error, match="activation: expected GELU"):
        trees.NeuronForest.from_ultrafastbert(MaskedTrees(16, 3, 1, activation=torch.nn.Softplus()))
