"""Forests on NumPy arrays, against double precision."""

import numpy as np
import pytest

import espalier


def neuron_tensors(random, trees=2, depth=5, hidden=40):
    nodes = 2 ** (depth + 1) - 1
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
    return normal(trees, nodes, hidden) / 6, normal(trees, nodes, hidden), normal(trees, nodes) / 10, normal(hidden)


def relu_trees(x, node_weight, down, node_bias, output_bias):
    """UltraFastBERT's trees with ReLU in double precision, the last nodes, and the smallest margin of each token."""
    y = np.tile(output_bias.astype(np.float64), (len(x), 1))
    trees, nodes, _ = node_weight.shape
    leaf, margin = np.zeros((len(x), trees), int), np.full(len(x), np.inf)
    for i, row in enumerate(x.astype(np.float64)):
        for tree in range(trees):
            node = 0
            while node < nodes:
                product = node_weight[tree, node] @ row + node_bias[tree, node]
                if 2 * node + 1 < nodes:  # the last one decides nothing
                    margin[i] = min(margin[i], abs(product))
                y[i] += max(product, 0) * down[tree, node]
                leaf[i, tree], node = node - nodes // 2, 2 * node + 1 + (product > 0)
    return y, leaf, margin


@pytest.mark.parametrize("isa", [None, "scalar"])
@pytest.mark.parametrize("tokens", [1, 7, 200])
def test_neuron_forest(isa, tokens):
    random = np.random.default_rng(3)
    tensors = neuron_tensors(random)
    trees = espalier.Forest.neuron(*tensors, activation="relu", isa=isa)
    assert (trees.hidden, trees.trees, trees.depth) == (40, 2, 5)
    x = random.standard_normal((tokens, 40)).astype(np.float32)
    expected, leaf, margin = relu_trees(x, *tensors)
    sure = margin > 1e-4
    assert sure.mean() > 0.9
    y = espalier.forest(x, trees, threads=2)
    assert y.shape == x.shape and np.abs(y - expected)[sure].max() < 1e-5 * np.abs(expected).max()
    found, margins = np.zeros((tokens, 2), np.uint32), np.zeros((tokens, 2), np.float32)
    again = np.ones_like(x)
    trees.run(x, again, add=True, leaf=found, margin=margins)
    np.testing.assert_array_equal(found[sure], leaf[sure])
    assert np.abs(margins.min(axis=1) - margin)[sure].max() < 1e-5
    np.testing.assert_allclose(again, y + 1, atol=1e-5)


def test_arrays_are_used_where_they_lie():
    random = np.random.default_rng(4)
    node_weight, down, node_bias, output_bias = neuron_tensors(random, trees=1, depth=0)
    trees = espalier.Forest.neuron(node_weight, down, activation="none")
    x = random.standard_normal((3, 5, 40)).astype(np.float32)
    y = espalier.forest(x, trees)
    assert y.shape == (3, 5, 40)
    down *= 2
    out = np.empty_like(x)
    assert espalier.forest(x, trees, out=out) is out
    np.testing.assert_allclose(out, 2 * y, rtol=1e-6)
    del node_weight, down  # the forest keeps what it reads
    np.testing.assert_array_equal(espalier.forest(x, trees), out)


def test_what_is_refused_is_named():
    random = np.random.default_rng(5)
    node_weight, down, node_bias, _ = neuron_tensors(random)

    def refused(words, call):
        with pytest.raises(espalier.Error) as caught:
            call()
        assert words in str(caught.value)

    refused("node_weight: expected 2^n - 1 nodes", lambda: espalier.Forest.neuron(node_weight[:, :60].copy(), down))
    refused("down: expected [2, 63, 40], found [1, 63, 40]", lambda: espalier.Forest.neuron(node_weight, down[:1]))
    refused("node_bias: expected [2, 63], found [2]",
            lambda: espalier.Forest.neuron(node_weight, down, node_bias[:, 0].copy()))
    refused("activation: expected none", lambda: espalier.Forest.neuron(node_weight, down, activation="swish"))
    trees = espalier.Forest.neuron(node_weight, down)
    x = random.standard_normal((4, 40)).astype(np.float32)
    refused("x: expected [..., 40], found [4, 39]", lambda: espalier.forest(x[:, :39].copy(), trees))
    refused("out: expected other memory", lambda: espalier.forest(x, trees, out=x))
    refused("out: expected the shape of x", lambda: espalier.forest(x, trees, out=x[:2].copy()))
    for other in (x.astype(np.float64), np.asfortranarray(x), x[:, ::2], x.tolist()):
        with pytest.raises(TypeError):
            espalier.forest(other, trees)
    frozen = np.empty_like(x)
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        espalier.forest(x, trees, out=frozen)
