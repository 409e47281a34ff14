"""The masked-language-model loss (BERT, arXiv 1810.04805, section 3.1), for teachers that are to keep it."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .encoder import Encoder, LayerNorm
from .parts import Linear
from .text import Corpus

_SHARE = 0.15


def mask_tokens(ids: torch.Tensor, corpus: Corpus, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [B, S] -> ids with 15 % of the text tokens hidden (80 % [MASK], 10 % another, 10 % as is), and which."""
    draw = torch.rand(ids.shape, device=ids.device)
    chosen = (draw < _SHARE) & (ids != corpus.cls) & (ids != corpus.sep)
    chosen[0, 1] = True  # never none at all
    kind = torch.rand(ids.shape, device=ids.device)
    hidden = ids.masked_fill(chosen & (kind < 0.8), corpus.mask)
    other = torch.randint_like(ids, vocabulary)
    return torch.where(chosen & (kind >= 0.8) & (kind < 0.9), other, hidden), chosen


class MaskedHead(nn.Module):
    """BERT's prediction head, the output weights tied to the word embeddings."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        hidden = encoder.shape.hidden
        self.dense, self.LayerNorm = Linear(hidden, hidden), LayerNorm(hidden, eps=encoder.shape.epsilon)
        self.bias = nn.Parameter(torch.zeros(encoder.shape.vocabulary))

    def forward(self, x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        x = self.LayerNorm(F.gelu(self.dense(x)))
        return F.linear(x, words.to(x.dtype), self.bias.to(x.dtype))
