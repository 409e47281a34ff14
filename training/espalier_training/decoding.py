"""Decoders: what fuse and distil do with a Llama folder as the teacher."""
from __future__ import annotations

import math
from typing import Iterable

import torch
import torch.nn.functional as F

from .config import Distil, Run
from .decoder import Decoder
from .fidelity import relative_error

_LEAST_SHARE_OF_SCALE = 1e-4  # of the largest component of a norm's scale; what is smaller is not divided by


@torch.no_grad()
def fuse_decoder(model: Decoder, runs: list[tuple[int, int]], attention: list[bool]) -> Decoder:
    """runs: first and last layers of what is fused. Layers of a run read the same x, normalised: the scale of the last one's
    norm is the fused layer's, those of the others go into their weights (exact; arXiv 2503.18908, theorem 3.1)."""
    layers = list(model.model.layers)
    fused = Decoder(model.shape, [sum(model.widths[first: last + 1]) for first, last in runs],
                    [attention[first] for first, _ in runs], [model.ends[last] for _, last in runs], model.tied)
    for module in ("embed_tokens", "norm"):
        getattr(fused.model, module).load_state_dict(getattr(model.model, module).state_dict())
    if not model.tied:
        fused.lm_head.load_state_dict(model.lm_head.state_dict())
    for layer, (first, last) in zip(fused.model.layers, runs):
        if layer.attends:
            layer.self_attn.load_state_dict(layers[first].self_attn.state_dict())
            layer.input_layernorm.load_state_dict(layers[first].input_layernorm.state_dict())
        scales = [layers[i].post_attention_layernorm.weight for i in range(first, last + 1)]
        shared = scales[-1]
        if shared.abs().min() <= _LEAST_SHARE_OF_SCALE * shared.abs().max():
            shared = torch.ones_like(shared)
        layer.post_attention_layernorm.weight.copy_(shared)
        of = lambda name: [getattr(layers[i].mlp, name).weight for i in range(first, last + 1)]
        for name in ("gate_proj", "up_proj"):
            getattr(layer.mlp, name).weight.copy_(torch.cat([w * (s / shared) for w, s in zip(of(name), scales)]))
        layer.mlp.down_proj.weight.copy_(torch.cat(of("down_proj"), 1))
    return fused


def decoder_losses(student: Decoder, teacher: Decoder, ours: list[torch.Tensor], theirs: list[torch.Tensor], options: Distil,
                   hidden_weight: float) -> torch.Tensor:
    """Divergence of the next token's probabilities (teacher to student, nats a token) and the mean relative error of states."""
    hidden = sum(relative_error(a, b) for a, b in zip(ours[1:], theirs[1:])) / (len(ours) - 1)
    with torch.no_grad():
        wanted = F.log_softmax(teacher.logits(theirs[-1]), -1).flatten(0, 1)
    found = F.log_softmax(student.logits(ours[-1]), -1).flatten(0, 1)
    return hidden_weight * hidden + options.logits * F.kl_div(found, wanted, log_target=True, reduction="batchmean")


@torch.no_grad()
def decoder_fidelity(student: Decoder, teacher: Decoder, batches: Iterable[torch.Tensor], dtype: torch.dtype) -> dict:
    """On held-out text: perplexities, divergence in nats a token, how often the likeliest token is the same."""
    sums = torch.zeros(4, dtype=torch.double)
    tokens, error, size = 0, [0.0] * len(student.widths), [0.0] * len(student.widths)
    for ids in batches:
        ours, theirs = student(ids, dtype), teacher(ids, dtype)
        for i, (a, b) in enumerate(zip(ours[1:], student.counterparts(theirs)[1:])):
            error[i] += float(((a.float() - b.float()) ** 2).sum())
            size[i] += float((b.float() ** 2).sum())
        found, wanted = (F.log_softmax(m.logits(s[-1]), -1) for m, s in ((student, ours), (teacher, theirs)))
        next_ids = ids[:, 1:, None]
        loss = lambda p: -p[:, :-1].gather(2, next_ids).sum()
        kl = (wanted.exp() * (wanted - found)).sum(-1)[:, :-1].sum()
        same = (found.argmax(-1) == wanted.argmax(-1))[:, :-1].sum()
        sums += torch.stack([loss(found), loss(wanted), kl, same]).double().cpu()
        tokens += next_ids.numel()
    ours, theirs, divergence, same = (sums / tokens).tolist()
    return {"perplexity": math.exp(ours), "teacher_perplexity": math.exp(theirs), "divergence": divergence, "same_token": same,
            "tokens": tokens, "hidden_error": [e / s for e, s in zip(error, size)]}


def check_decoder(run: Run) -> None:
    if run.parts != "teacher":
        raise ValueError(f"parts: expected \"teacher\" (trees are grown in encoders only), found {run.parts!r}")
    if not run.fuses:
        raise ValueError("fuse.drop_attention: expected the layers that lose their attention, found none")
