"""A decoder of the Llama family: RMSNorm in front, rotary positions, grouped queries, gated SiLU; layers may lack attention.

Module names give Hugging Face's tensor names.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class DecoderShape:
    hidden: int
    heads: int
    kv_heads: int
    head_dimension: int
    positions: int
    vocabulary: int
    epsilon: float
    theta: float
    begin: int
    end: int


class Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.Module):
    def __init__(self, hidden: int, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(hidden)), epsilon

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt((y * y).mean(-1, keepdim=True) + self.epsilon) * self.weight).to(x.dtype)


def turned(x: torch.Tensor, first: int, theta: float) -> torch.Tensor:
    """x [B, heads, S, d] at positions first, first + 1, ...: component i turns with i + d/2."""
    half = x.shape[-1] // 2
    rate = theta ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(first, first + x.shape[2], device=x.device)[:, None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend_causally(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q [B, heads, S, d], k, v [B, heads, S', d]; the last query sees every key."""
    if q.shape[2] == k.shape[2] and hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if q.shape[2] > 1:
        late = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1 + k.shape[2] - q.shape[2])
        scores = scores.masked_fill(late, -math.inf)
    return torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype) @ v


class Cache:
    """Keys and values of one layer, up to `tokens`."""

    def __init__(self, s: DecoderShape, texts: int, tokens: int, like: torch.Tensor):
        """like: of the type and device they are computed in."""
        self.keys, self.values = (like.new_empty(texts, s.kv_heads, tokens, s.head_dimension) for _ in range(2))
        self.tokens = 0

    def added(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All of them, with these [B, kv_heads, S, d] behind."""
        first, self.tokens = self.tokens, self.tokens + k.shape[2]
        self.keys[:, :, first: self.tokens], self.values[:, :, first: self.tokens] = k, v
        return self.keys[:, :, : self.tokens], self.values[:, :, : self.tokens]


class SelfAttention(nn.Module):
    def __init__(self, s: DecoderShape):
        super().__init__()
        self.shape = s
        self.q_proj = Linear(s.hidden, s.heads * s.head_dimension)
        self.k_proj, self.v_proj = (Linear(s.hidden, s.kv_heads * s.head_dimension) for _ in range(2))
        self.o_proj = Linear(s.heads * s.head_dimension, s.hidden)

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        """cache: of the tokens before, to which these are added."""
        s, (b, tokens, _) = self.shape, x.shape
        split = lambda y, heads: y.view(b, tokens, heads, s.head_dimension).transpose(1, 2)
        q, k, v = split(self.q_proj(x), s.heads), split(self.k_proj(x), s.kv_heads), split(self.v_proj(x), s.kv_heads)
        first = cache.tokens if cache else 0
        q, k = turned(q, first, s.theta), turned(k, first, s.theta)
        if cache:
            k, v = cache.added(k, v)
        k, v = (y.repeat_interleave(s.heads // s.kv_heads, 1) for y in (k, v))
        return self.o_proj(attend_causally(q, k, v).transpose(1, 2).reshape(b, tokens, -1))


class Gated(nn.Module):
    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = Linear(hidden, width), Linear(hidden, width), Linear(width, hidden)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s: DecoderShape, width: int, attends: bool):
        super().__init__()
        self.attends = attends
        if attends:
            self.self_attn, self.input_layernorm = SelfAttention(s), RMSNorm(s.hidden, s.epsilon)
        self.mlp, self.post_attention_layernorm = Gated(s.hidden, width), RMSNorm(s.hidden, s.epsilon)

    def forward(self, x: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        if self.attends:
            x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, shape: DecoderShape, widths: list[int], attention: list[bool] | None = None,
                 ends: list[int] | None = None, tied: bool = True):
        """widths, attention: a layer. ends: see counterparts. tied: the output matrix is the embedding table."""
        super().__init__()
        self.shape = shape
        self.ends = ends or list(range(1, len(widths) + 1))
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.model.layers = nn.ModuleList(Layer(shape, w, a) for w, a in zip(widths, attention or [True] * len(widths)))
        self.model.norm = RMSNorm(shape.hidden, shape.epsilon)
        if not tied:
            self.lm_head = Linear(shape.hidden, shape.vocabulary)

    @property
    def tied(self) -> bool:
        return not hasattr(self, "lm_head")

    @property
    def widths(self) -> list[int]:
        return [layer.mlp.gate_proj.out_features for layer in self.model.layers]

    @property
    def attention(self) -> list[bool]:
        return [layer.attends for layer in self.model.layers]

    def counterparts(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of a model's states, those that this one's stand for: a fused layer ends where the last of its run did."""
        return [states[0]] + [states[end] for end in self.ends]

    def forward(self, ids: torch.Tensor, dtype: torch.dtype = torch.float32, caches: list[Cache] | None = None) -> list[torch.Tensor]:
        """ids [B, S] -> what embeddings and every layer put out: L + 1 times [B, S, H]. caches: one a layer."""
        states = [self.model.embed_tokens(ids).to(dtype)]
        for i, layer in enumerate(self.model.layers):
            states.append(layer(states[-1], caches[i] if caches is not None else None))
        return states

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """Of the last state [..., H]: [..., vocabulary], float32."""
        x = self.model.norm(state)
        table = self.model.embed_tokens.weight if self.tied else self.lm_head.weight
        return F.linear(x, table.to(x.dtype)).float()


@torch.no_grad()
def write(model: Decoder, texts: int, tokens: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Texts the model writes by itself, every token drawn with its probability: ids [texts, tokens], the begin token first.

    Behind an end token the next text begins."""
    device, s = model.model.norm.weight.device, model.shape
    random = torch.Generator(device).manual_seed(seed)
    ids = torch.full((texts, tokens), s.begin, dtype=torch.long, device=device)
    caches = [Cache(s, texts, tokens, torch.empty(0, dtype=dtype, device=device)) for _ in model.model.layers]
    for place in range(1, tokens):
        last = ids[:, place - 1: place]
        chances = torch.softmax(model.logits(model(last, dtype, caches)[-1][:, 0]), -1)
        drawn = torch.multinomial(chances, 1, generator=random)
        ids[:, place: place + 1] = torch.where((last == s.end) & (s.end != s.begin), s.begin, drawn)
    return ids
