"""The parts against their definition, token by token."""
import math

import pytest
import torch

from espalier_training.grouped import Groups, rows_of
from espalier_training.parts import descend, leaf_by_product, make_part, operations_share, parse_parts
from espalier_training.plots import effective_leaves

H = 12


def gelu(z: float) -> float:
    return 0.5 * z * (1 + math.erf(z / math.sqrt(2)))


def random_part(text: str):
    (spec,) = parse_parts(text)
    part = make_part(H, spec)
    with torch.no_grad():
        for tensor in part.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    return part


def leaf_forest_by_definition(part, x):
    s, w = part.spec, part.state_dict()
    y, leaves = torch.zeros_like(x), torch.zeros(len(x), s.trees, dtype=torch.long)
    for t, token in enumerate(x):
        for k in range(s.trees):
            n = 0
            for _ in range(s.depth):
                row = k * s.nodes + n
                n = 2 * n + (2 if float(token @ w["node.weight"][row] - w["node.threshold"][row]) > 0 else 1)
            leaf = n - s.nodes
            leaves[t, k] = leaf
            i = k * 2 ** s.depth + leaf
            for neuron in range(s.width):
                z = float(token @ w["leaf.up.weight"][i, neuron] + w["leaf.up.bias"][i, neuron])
                y[t] += gelu(z) * w["leaf.down.weight"][i, neuron]
            y[t] += w["leaf.down.bias"][i]
    return y, leaves


def neuron_forest_by_definition(part, x):
    s, w = part.spec, part.state_dict()
    y, visited = w["out.bias"].expand_as(x).clone(), []
    for t, token in enumerate(x):
        for k in range(s.trees):
            n = 0
            for _ in range(s.depth + 1):
                row = k * s.nodes + n
                visited.append(row)
                z = float(token @ w["in.weight"][row] + w["in.bias"][row])
                y[t] += gelu(z) * w["out.weight"][row]
                n = 2 * n + (2 if z > 0 else 1)
    return y, set(visited)


@pytest.mark.parametrize("text", ["leaf:1:3:5", "leaf:2:2:3", "leaf:1:0:4", "leaf:3:1:0"])
def test_leaf_forests(text):
    part, x, routes = random_part(text), torch.randn(40, H), []
    wanted, leaves = leaf_forest_by_definition(part, x)
    torch.testing.assert_close(part(x, routes), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(routes[0], leaves)


@pytest.mark.parametrize("text", ["neuron:1:3", "neuron:3:2", "neuron:2:0", "neuron:1:7", "neuron:2:8"])
def test_neuron_forests_and_that_only_visited_nodes_learn(text):
    part, x = random_part(text), 0.3 * torch.randn(20, H)  # gelu of much less than 0 is 0
    wanted, visited = neuron_forest_by_definition(part, x)
    y = part(x)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
    y.square().sum().backward()
    learned = getattr(part, "in").weight.grad.abs().sum(1).nonzero().squeeze(1).tolist()
    assert set(learned) <= visited
    assert set(part.out.weight.grad.abs().sum(1).nonzero().squeeze(1).tolist()) == visited


@pytest.mark.parametrize("text", ["neuron:1:4", "neuron:2:5", "neuron:1:7"])
def test_deep_neuron_trees_in_two_steps_are_those_computed_at_once(text):
    part, x = random_part(text), torch.randn(60, H)
    found = []
    for deepest in (0, 16):
        part._DEEPEST_AT_ONCE = deepest
        part.zero_grad()
        routes, inputs = [], x.clone().requires_grad_()
        y = part(inputs, routes)
        y.square().sum().backward()
        found.append([y.detach(), routes[0].float(), inputs.grad, *(p.grad.clone() for p in part.parameters())])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_of_leaf_forests_are_those_of_plain_indexing():
    part, x = random_part("leaf:1:2:3"), torch.randn(30, H)
    leaf = part.route(x)[:, 0]
    part(x).square().sum().backward()
    ours = {n: p.grad.clone() for n, p in part.named_parameters()}
    part.zero_grad()
    w = dict(part.named_parameters())
    a = torch.nn.functional.gelu(torch.einsum("th,tlh->tl", x, w["leaf.up.weight"][leaf]) + w["leaf.up.bias"][leaf])
    y = torch.einsum("tl,tlh->th", a, w["leaf.down.weight"][leaf]) + w["leaf.down.bias"][leaf]
    y.square().sum().backward()
    for name, p in part.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_product_finds_the_leaf_that_walking_finds(depth):
    right = torch.rand(100, 2, 2 ** depth - 1) > 0.5
    assert torch.equal(leaf_by_product(right, depth), descend(right, depth) - (2 ** depth - 1))


def test_groups_with_an_empty_one():
    group = torch.tensor([2, 0, 2, 3, 0])
    x, matrices = torch.randn(5, 4), torch.randn(5, 4, 3)
    groups = Groups(group, 5)
    y = groups.unsort(groups.multiply(groups.sort(x), matrices))
    torch.testing.assert_close(y, torch.stack([x[i] @ matrices[g] for i, g in enumerate(group)]))
    torch.testing.assert_close(rows_of(group, matrices[:, :, 0]), matrices[group][:, :, 0])


@pytest.mark.parametrize("text", ["", "dense", "dense:0", "leaf:1:5", "neuron:1:x", "leaf:1:5:64+", "neuron:0:3", "leaf:0:2:4", "leaf:1:17:1"])
def test_parts_that_make_no_sense(text):
    with pytest.raises(ValueError, match="parts"):
        parse_parts(text)


def test_sizes():
    dense, leaf = parse_parts("dense:64+leaf:1:5:64")
    assert (leaf.nodes, leaf.stored(), dense.stored()) == (31, 2048, 64)
    # 128 neurons and 5 tests, which are half a neuron's products each.
    assert operations_share([dense, leaf], 1536) == pytest.approx(130.5 / 1536)
    (neuron,) = parse_parts("neuron:1:11")
    assert (neuron.nodes, neuron.active()) == (4095, 12)


def test_leaves_in_use():
    assert effective_leaves(torch.tensor([5, 5, 5, 5])) == pytest.approx(4)
    assert effective_leaves(torch.tensor([9, 0, 0])) == pytest.approx(1)
