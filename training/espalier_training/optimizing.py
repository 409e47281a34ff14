"""What distil, finetune and joint have in common: what learns, by which optimizer, at which rate."""
from __future__ import annotations

import torch
from torch import nn


def is_table(name: str) -> bool:
    """Of a parameter: an embedding table."""
    return name.startswith("embeddings.") and "LayerNorm" not in name


def all_but_tables(model: nn.Module) -> list[nn.Parameter]:
    """Those that learn from now on; the routing of leaf trees is no parameter."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_table(name))
    return [p for p in model.parameters() if p.requires_grad]


def adamw(parameters: list, device: torch.device) -> torch.optim.AdamW:
    """parameters: or groups of them. The rate is set every step."""
    fused = {"fused": True} if device.type == "cuda" else {}
    return torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01, **fused)


def take_step(optimizer: torch.optim.AdamW, parameters: list[nn.Parameter], rate: float, step: int, steps: int, warm: int) -> None:
    """With the gradients that are there, and clears them. The rate rises linearly for `warm` steps, then falls to zero."""
    warm = max(1, warm)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate * min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
