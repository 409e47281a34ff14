"""Feed-forward trees in PyTorch, written from the published definitions, to compare with.

MaskedTrees: UltraFastBERT as its training code computes it (arXiv 2311.10770, section 2 and Algorithm 1): a dense
pass over all nodes, then a mask that keeps the visited path. The names of its parameters are the released ones.
LeafTree: a fast feedforward network at inference (arXiv 2308.14711, Algorithm 1), one product a token and node, with
the parameter names of the fastfeedforward package; soft() is its training form, the mixture of all leaves.
"""

import torch
from torch import nn


class MaskedTrees(nn.Module):
    def __init__(self, hidden, depth, trees, bias=True, activation=None):
        super().__init__()
        self.depth, self.parallel_size, self.n_nodes = depth, trees, 2 ** (depth + 1) - 1
        neurons = trees * self.n_nodes
        self.linear_in = nn.Linear(hidden, neurons, bias=bias)
        self.linear_out = nn.Linear(neurons, hidden, bias=False)
        nn.init.uniform_(self.linear_out.weight, -((depth + 1) * trees) ** -0.5, ((depth + 1) * trees) ** -0.5)
        self.activation = activation or nn.GELU()

    def path(self, products):
        """The nodes on every token's path through every tree, level by level: [levels, tokens, trees]."""
        goes_right = (products > 0).long()
        node = torch.zeros(products.shape[:2], dtype=torch.long)
        path = [node]
        for _ in range(self.depth):
            node = 2 * node + 1 + goes_right.gather(2, node.unsqueeze(2)).squeeze(2)
            path.append(node)
        return torch.stack(path)

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        products = self.linear_in(rows).view(len(rows), self.parallel_size, self.n_nodes)
        with torch.no_grad():
            visited = torch.zeros_like(products).scatter_(2, self.path(products).permute(1, 2, 0), 1.0)
        active = self.activation(products) * visited
        return self.linear_out(active.flatten(1)).view_as(x)

    def margins(self, x):
        """The smallest |product| that decides anything, of each token."""
        products = self.linear_in(x).view(len(x), self.parallel_size, self.n_nodes)
        on_path = products.gather(2, self.path(products).permute(1, 2, 0))[:, :, : self.depth]
        return on_path.abs().flatten(1).min(dim=1).values if self.depth else torch.full((len(x),), 1.0)


class LeafTree(nn.Module):
    def __init__(self, hidden, leaf_width, depth, activation=None):
        super().__init__()
        leaves = 2**depth

        def uniform(*shape, fan_in):
            return nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))

        self.depth = nn.Parameter(torch.tensor(depth), requires_grad=False)
        self.node_weights = uniform(leaves - 1, hidden, fan_in=hidden)
        self.node_biases = uniform(leaves - 1, 1, fan_in=hidden)
        self.w1s = uniform(leaves, hidden, leaf_width, fan_in=hidden)
        self.b1s = uniform(leaves, leaf_width, fan_in=hidden)
        self.w2s = uniform(leaves, leaf_width, hidden, fan_in=leaf_width)
        self.b2s = uniform(leaves, hidden, fan_in=leaf_width)
        self.activation = activation or nn.ReLU()

    def walk(self, x):
        """The leaf of every token, and the smallest |logit| on its way."""
        node = torch.zeros(len(x), dtype=torch.long)
        margin = torch.full((len(x),), float("inf"))
        for _ in range(int(self.depth)):
            logit = (self.node_weights[node] * x).sum(1) + self.node_biases[node, 0]
            margin = torch.minimum(margin, logit.abs())
            node = 2 * node + 1 + (torch.sigmoid(logit) >= 0.5).long()
        return node - (2 ** int(self.depth) - 1), margin

    def forward(self, x, output_bias=True):
        rows = x.reshape(-1, x.shape[-1])
        leaf, _ = self.walk(rows)
        hidden = self.activation(torch.bmm(rows.unsqueeze(1), self.w1s[leaf]) + self.b1s[leaf].unsqueeze(1))
        y = torch.bmm(hidden, self.w2s[leaf]).squeeze(1)
        return (y + self.b2s[leaf] if output_bias else y).view_as(x)

    def soft(self, x, hard):
        """All leaves, each times the probability of its path; hard: probabilities rounded."""
        mixture = torch.ones(len(x), 1)
        for level in range(int(self.depth)):
            nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
            right = torch.sigmoid(x @ self.node_weights[nodes].T + self.node_biases[nodes, 0])
            right = (right >= 0.5).float() if hard else right
            mixture = torch.stack([mixture * (1 - right), mixture * right], dim=2).flatten(1)
        hidden = self.activation(torch.einsum("th,lhw->tlw", x, self.w1s) + self.b1s)
        return torch.einsum("tl,tlo->to", mixture, torch.einsum("tlw,lwo->tlo", hidden, self.w2s) + self.b2s)
