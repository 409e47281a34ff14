"""A BERT encoder (post-norm) whose feed-forward layers are sums of parts. The dense teacher is the same with dense:WIDTH.

Module names give Hugging Face's tensor names, except those of the parts and heads (docs/checkpoints.md).
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .parts import Linear, PartSpec, make_part


@dataclass
class Shape:
    """What a config.json says of an encoder besides its parts."""
    hidden: int
    layers: int
    heads: int
    positions: int
    types: int
    vocabulary: int
    epsilon: float
    lower_case: bool = True
    pooling: str = "mean"


class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Embeddings(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position_embeddings = nn.Embedding(shape.positions, shape.hidden)
        self.token_type_embeddings = nn.Embedding(shape.types, shape.hidden)
        self.LayerNorm = LayerNorm(shape.hidden, eps=shape.epsilon)

    def forward(self, ids: torch.Tensor, types: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        kind = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types)
        x = self.word_embeddings(ids) + self.position_embeddings.weight[: ids.shape[1]] + kind
        return self.LayerNorm(x.to(dtype))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """q, k, v [B, heads, S, d]; mask [B, S], true where there is a token."""
    mask = None if mask is None else mask[:, None, None, :]
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    return torch.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), -1) @ v


class SelfAttention(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value = (Linear(shape.hidden, shape.hidden) for _ in range(3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        b, s, h = x.shape
        q, k, v = (f(x).view(b, s, self.heads, h // self.heads).transpose(1, 2) for f in (self.query, self.key, self.value))
        return attend(q, k, v, mask).transpose(1, 2).reshape(b, s, h)


class Output(nn.Module):
    def __init__(self, shape: Shape, dense: bool):
        super().__init__()
        if dense:
            self.dense = Linear(shape.hidden, shape.hidden)
        self.LayerNorm = LayerNorm(shape.hidden, eps=shape.epsilon)


class Layer(nn.Module):
    def __init__(self, shape: Shape, parts: list[PartSpec], attends: bool = True):
        super().__init__()
        self.attends = attends
        if attends:
            self.attention = nn.Module()
            self.attention.self = SelfAttention(shape)
            self.attention.output = Output(shape, dense=True)
        self.ffn = nn.ModuleList(make_part(shape.hidden, p) for p in parts)
        self.output = Output(shape, dense=False)

    def attended(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """What the feed-forward layer reads."""
        if not self.attends:
            return x
        out = self.attention.output
        return out.LayerNorm(x + out.dense(self.attention.self(x, mask)))

    def feed_forward(self, x: torch.Tensor, routes: list | None = None) -> torch.Tensor:
        """Sum of the parts, x [B, S, H]."""
        flat = x.reshape(-1, x.shape[-1])
        return sum(part(flat, routes) for part in self.ffn).view_as(x)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, routes: list | None = None) -> torch.Tensor:
        x = self.attended(x, mask)
        return self.output.LayerNorm(x + self.feed_forward(x, routes))


class Head(nn.Module):
    """tanh(dense(pooled)) then out; pooled = mean over tokens of the last hidden states."""

    def __init__(self, hidden: int, labels: tuple[str, ...]):
        super().__init__()
        self.labels = labels
        self.dense, self.out = Linear(hidden, hidden), Linear(hidden, max(1, len(labels)))
        for layer in (self.dense, self.out):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.dense(pooled)))


class Encoder(nn.Module):
    def __init__(self, shape: Shape, parts: list[list[PartSpec]], attention: list[bool] | None = None, ends: list[int] | None = None):
        """attention: which layers have any; all, if not given. ends: see counterparts."""
        super().__init__()
        self.shape = shape
        self.own_tables = True  # or those of the model it was grown from, which need not be stored again
        self.embeddings = Embeddings(shape)
        self.encoder = nn.Module()
        self.ends = ends or list(range(1, len(parts) + 1))
        self.encoder.layer = nn.ModuleList(Layer(shape, p, a) for p, a in zip(parts, attention or [True] * len(parts)))
        self.heads = nn.ModuleDict()

    @property
    def parts(self) -> list[list[PartSpec]]:
        return [[part.spec for part in layer.ffn] for layer in self.encoder.layer]

    @property
    def attention(self) -> list[bool]:
        return [layer.attends for layer in self.encoder.layer]

    def counterparts(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of a model's states, those that this one's stand for: a fused layer ends where the last of its run did."""
        return [states[0]] + [states[end] for end in self.ends]

    def add_head(self, name: str, labels: tuple[str, ...]) -> None:
        self.heads[name] = Head(self.shape.hidden, labels).to(self.embeddings.LayerNorm.weight.device)

    def forward(self, ids: torch.Tensor, types: torch.Tensor | None = None, mask: torch.Tensor | None = None,
                dtype: torch.dtype = torch.float32, routes: list | None = None) -> list[torch.Tensor]:
        """ids, types, mask [B, S] -> what embeddings and every layer put out: L + 1 times [B, S, H]."""
        states = [self.embeddings(ids, types, dtype)]
        for layer in self.encoder.layer:
            states.append(layer(states[-1], mask, routes))
        return states


def pool(x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the tokens of [B, S, H], in float32."""
    if mask is None:
        return x.float().mean(1)
    m = mask.float()[..., None]
    return (x.float() * m).sum(1) / m.sum(1)
