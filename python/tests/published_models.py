"""Whole encoders in PyTorch, written from the published definitions, with the released names of their parameters.

Crammed: crammedBERT with trees (arXiv 2212.14034; UltraFastBERT, arXiv 2311.10770): pre-norm, scaled sinusoidal
positions, norms after the embedding and at the end, no bias in dense and attention layers, queries, keys and values
head by head in one matrix; average pool, a tanh layer, the labels.
BertWithFFF: BERT (arXiv 1810.04805) whose feed-forward layers are trees with leaves (arXiv 2308.14711).
Both take one sequence of ids, without padding.
"""

import math

import torch
from torch import nn

from published import LeafTree, MaskedTrees


def attention(query, key, value):
    """[heads, tokens, width] each."""
    return torch.softmax(query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]), dim=-1) @ value


class CrammedAttention(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.self_attention = nn.Module()
        self.self_attention.query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
        self.self_attention.register_buffer("norm_factor", torch.tensor(float(hidden // heads)).rsqrt())
        self.dense = nn.Linear(hidden, hidden, bias=False)
        self.heads = heads

    def forward(self, x):
        qkv = self.self_attention.query_key_value(x).view(len(x), self.heads, 3, -1).permute(2, 1, 0, 3)
        return self.dense(attention(*qkv).transpose(0, 1).flatten(1))


class CrammedLayer(nn.Module):
    def __init__(self, hidden, heads, depth, trees, bias):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)
        self.attn, self.ffn = CrammedAttention(hidden, heads), MaskedTrees(hidden, depth, trees, bias=bias)

    def forward(self, x, margins):
        x = x + self.attn(self.norm1(x))
        margins.append(self.ffn.margins(self.norm2(x)).min())
        return x + self.ffn(self.norm2(x))


class Crammed(nn.Module):
    def __init__(self, vocabulary, hidden, heads, layers, depth, trees, positions, labels, head_width, bias=True):
        super().__init__()
        self.encoder = encoder = nn.Module()
        encoder.embedding = embedding = nn.Module()
        embedding.word_embedding = nn.Embedding(vocabulary, hidden, padding_idx=0)
        embedding.pos_embedding = nn.Module()
        embedding.pos_embedding.scale_factor = nn.Parameter(torch.tensor([1.7 / hidden**0.5]))
        embedding.norm = nn.LayerNorm(hidden, eps=1e-12)
        encoder.layers = nn.ModuleList(CrammedLayer(hidden, heads, depth, trees, bias) for _ in range(layers))
        encoder.final_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.pooler = nn.Module()
        self.pooler.dense = nn.Linear(hidden, head_width)
        self.head = nn.Linear(head_width, labels)
        for name, parameter in self.named_parameters():  # norms that do something
            if "norm" in name:
                nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)
        rate = torch.exp(torch.arange(0, hidden, 2).float() * (-math.log(10000.0) / hidden))
        angle = torch.arange(positions).float().unsqueeze(1) * rate
        self.positions = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)

    def hidden(self, ids):
        """Last hidden states [tokens, hidden], and the smallest margin of all walks."""
        embedding, margins = self.encoder.embedding, []
        x = embedding.word_embedding(ids) + embedding.pos_embedding.scale_factor * self.positions[: len(ids)]
        x = embedding.norm(x)
        for layer in self.encoder.layers:
            x = layer(x, margins)
        return self.encoder.final_norm(x), min(margins)

    def forward(self, ids):
        x, margin = self.hidden(ids)
        return self.head(torch.tanh(self.pooler.dense(x.mean(dim=0)))), margin


class BertLayer(nn.Module):
    def __init__(self, hidden, heads, leaf_width, depth, activation):
        super().__init__()
        self.attention, self.output, self.heads = nn.Module(), nn.Module(), heads
        self.attention.self, self.attention.output = nn.Module(), nn.Module()
        for name in ("query", "key", "value"):
            setattr(self.attention.self, name, nn.Linear(hidden, hidden))
        self.attention.output.dense = nn.Linear(hidden, hidden)
        self.attention.output.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)
        self.fff = LeafTree(hidden, leaf_width, depth, activation)
        self.output.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x, output_bias, margins):
        parts = (getattr(self.attention.self, name)(x) for name in ("query", "key", "value"))
        mixed = attention(*(p.view(len(x), self.heads, -1).transpose(0, 1) for p in parts))
        out = self.attention.output
        x = out.LayerNorm(x + out.dense(mixed.transpose(0, 1).flatten(1)))
        margins.append(self.fff.walk(x)[1].min())
        return self.output.LayerNorm(x + self.fff(x, output_bias=output_bias))


class BertWithFFF(nn.Module):
    def __init__(self, vocabulary, hidden, heads, layers, leaf_width, depth, positions, labels, activation):
        super().__init__()
        self.bert = bert = nn.Module()
        bert.embeddings = embeddings = nn.Module()
        embeddings.word_embeddings = nn.Embedding(vocabulary, hidden)
        embeddings.position_embeddings = nn.Embedding(positions, hidden)
        embeddings.token_type_embeddings = nn.Embedding(2, hidden)
        embeddings.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)
        bert.encoder = nn.Module()
        bert.encoder.layer = nn.ModuleList(
            BertLayer(hidden, heads, leaf_width, depth, activation) for _ in range(layers)
        )
        bert.pooler = nn.Module()
        bert.pooler.dense = nn.Linear(hidden, hidden)
        self.classifier = nn.Linear(hidden, labels)

    def forward(self, ids, output_bias):
        tables, margins = self.bert.embeddings, []
        x = tables.word_embeddings(ids) + tables.position_embeddings.weight[: len(ids)]
        x = tables.LayerNorm(x + tables.token_type_embeddings.weight[0])
        for layer in self.bert.encoder.layer:
            x = layer(x, output_bias, margins)
        return self.classifier(torch.tanh(self.bert.pooler.dense(x[0]))), min(margins)
