"""How close a student is to its teacher on held-out text, and how its leaves are used."""
from __future__ import annotations

from typing import Iterable

import torch
import torch.nn.functional as F

from .encoder import Encoder, pool
from .plots import effective_leaves


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Sum of squared differences over the sum of theirs squared."""
    return (torch.linalg.vector_norm(ours - theirs, dtype=torch.float32) ** 2
            / torch.linalg.vector_norm(theirs, dtype=torch.float32) ** 2)


def count_leaves(routes: list[torch.Tensor], counts: list[torch.Tensor], specs: list) -> None:
    for leaf, spec, total in zip(routes, specs, counts):
        for k in range(spec.trees):
            total[k] += torch.bincount(leaf[:, k], minlength=2 ** spec.depth)


@torch.no_grad()
def fidelity(student: Encoder, teacher: Encoder, batches: Iterable[torch.Tensor], dtype: torch.dtype) -> dict:
    """{"cosine": mean over texts, "hidden_error": [L], "leaves": {"layer.part.tree": counts}, "leaves_used": exp of entropy}.

    hidden_error is the relative squared error of each layer's output, over all held-out tokens."""
    device = student.embeddings.LayerNorm.weight.device
    forests = [(f"{i}.{j}", p) for i, layer in enumerate(student.parts) for j, p in enumerate(layer) if p.kind != "dense"]
    counts = [torch.zeros(p.trees, 2 ** p.depth, dtype=torch.long, device=device) for _, p in forests]
    layers = student.shape.layers
    error, size = torch.zeros(layers, device=device), torch.zeros(layers, device=device)
    cosine, texts = 0.0, 0
    for ids in batches:
        routes: list[torch.Tensor] = []
        ours, theirs = student(ids, dtype=dtype, routes=routes), student.counterparts(teacher(ids, dtype=dtype))
        count_leaves(routes, counts, [p for _, p in forests])
        for i in range(layers):
            error[i] += ((ours[i + 1].float() - theirs[i + 1].float()) ** 2).sum()
            size[i] += (theirs[i + 1].float() ** 2).sum()
        cosine += float(F.cosine_similarity(pool(ours[-1]), pool(theirs[-1]), dim=1).sum())
        texts += len(ids)
    leaves = {f"{name}.{k}": c[k].tolist() for (name, p), c in zip(forests, counts) for k in range(p.trees)}
    used = {name: effective_leaves(c) for name, c in leaves.items()}
    return {"cosine": cosine / texts, "texts": texts, "hidden_error": (error / size).tolist(),
            "leaves_used": used, "leaves": leaves}
