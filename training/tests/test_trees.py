"""Trees from data: balance, exact fits where one exists, and what growing must not make worse."""
import numpy as np
import pytest
import torch

from espalier_training.config import Grow
from espalier_training.parts import make_part, parse_parts
from espalier_training.trees import grow_nodes, grow_parts, least_squares, middle, split_direction

H, W, N = 16, 24, 2048


@pytest.fixture
def dense():
    (spec,) = parse_parts(f"dense:{W}")
    return make_part(H, spec)


@pytest.fixture
def data(dense):
    x = torch.randn(N, H) @ torch.randn(H, H)
    with torch.no_grad():
        return x, dense(x)


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("how", ["crosscov", "regression", "input-pca", "random"])
def test_leaves_hold_equal_shares(data, how):
    x, y = data
    directions, thresholds, leaf = grow_nodes(x, y, 4, how, generator())
    assert torch.bincount(leaf, minlength=16).tolist() == [N // 16] * 16
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(15))


def test_the_direction_of_the_cross_covariance_is_the_singular_vector(data):
    x, y = data
    direction = split_direction(x, y, "crosscov", generator())
    c = np.cov(torch.cat([x, y], 1).numpy().T)[:H, H:]
    first = np.linalg.svd(c)[0][:, 0]
    assert abs(float(np.dot(first, direction.numpy()))) > 0.99


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0, 1.0, 2.0], [5.0] * 4, [0.0, 0.0, 0.0, 1.0]])
def test_the_middle(values):
    z = torch.tensor(values)
    assert int((z > middle(z)).sum()) <= (len(z) + 1) // 2


def test_least_squares_is_numpys(data):
    x, y = data
    w, b = least_squares(x, y, 0.0)
    wanted = np.linalg.lstsq(np.c_[x.numpy(), np.ones(N)].astype(np.float64), y.numpy().astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(np.r_[w.numpy(), b.numpy()[None]], wanted, atol=2e-3)


@pytest.mark.parametrize("text, fit", [(f"leaf:1:2:{W}", "copy"), (f"leaf:1:2:{W}", "least-squares"), (f"dense:{W}", "copy")])
def test_with_all_neurons_the_layer_is_reproduced(dense, data, text, fit):
    x, y = data
    parts = [make_part(H, s) for s in parse_parts(text)]
    grow_parts(parts, dense, x, y, Grow(fit=fit, ridge=1e-6), generator())
    with torch.no_grad():
        error = (sum(p(x) for p in parts) - y).square().mean() / y.var()
    assert error < 1e-3


@pytest.mark.parametrize("text", ["leaf:1:3:4", "leaf:2:2:4", "dense:4+leaf:1:2:4", "neuron:2:3", "leaf:1:3:0"])
@pytest.mark.parametrize("select", ["variance", "explained"])
def test_grown_parts_explain_more_than_their_mean(dense, data, text, select):
    x, y = data
    parts = [make_part(H, s) for s in parse_parts(text)]
    grow_parts(parts, dense, x, y, Grow(select=select), generator())
    with torch.no_grad():
        left = (y - sum(p(x) for p in parts)).square().mean()
    assert left < 0.95 * (y - y.mean(0)).square().mean()


@pytest.mark.parametrize("text", ["leaf:2:2:4", "neuron:2:2"])
def test_the_trees_of_a_forest_part_tokens_differently(dense, data, text):
    parts = [make_part(H, spec) for spec in parse_parts(text)]
    routes = []
    grow_parts(parts, dense, *data, Grow(split="input-pca"), generator())
    with torch.no_grad():
        parts[0](data[0], routes)
    first, second = routes[0].T
    together = torch.bincount(4 * first + second, minlength=16)
    assert (together > 0).sum() > 8  # alike: 4 of 16


def test_too_few_tokens_are_an_error(dense, data):
    x, y = data
    with pytest.raises(ValueError, match="grow.tokens"):
        grow_nodes(x[:8], y[:8], 5, "crosscov", generator())
