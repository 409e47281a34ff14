"""agree: the exported model in the C++ runtime against its checkpoint in PyTorch, over whole dev sets: leaves and logits.

Every task of GLUE that the model has a head for (one called `classifier` is taken to be the only task of the run). Where a
token stands closer to a threshold than float32 can tell, two sums in different orders may go different ways, and the
layers above then see different tokens: such texts are counted, and their logits are not compared.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .checkpoint import load
from .common import say, vocabulary_of
from .config import Run
from .encoder import Encoder, pool
from .export import output_of, target_of
from .finetune import Encoded, encode
from .glue import TASKS, Examples, Task, load as load_task
from .progress import Progress
from .text import tokenizer

_MOST_LOGIT_DIFFERENCE = 2e-3
_UNDECIDED = 1e-4  # distance of a test from its threshold, where products summed in another order may fall on either side
_MOST_UNDECIDED = 0.02  # share of the texts


@dataclass
class Agreement:
    texts: int = 0
    undecided: int = 0  # texts in which a leaf differs
    leaves: int = 0
    other_leaves: int = 0
    widest: float = 0.0  # the largest distance from a threshold among the first leaves of a text that differ
    logits: float = 0.0  # the largest difference, of texts with the same leaves

    def add(self, leaves: list[np.ndarray], layers: list[dict], logits: np.ndarray) -> None:
        """Of one text: our leaves, and what the runtime says of them, forest by forest; the differences of its logits."""
        same = True
        for ours, theirs in zip(leaves, layers, strict=True):
            other = ours != np.array(theirs["leaf"])
            self.leaves += other.size
            self.other_leaves += int(other.sum())
            if same and other.any():  # all that follows in this text is its consequence
                self.widest = max(self.widest, float(np.abs(np.array(theirs["margin"]))[other].max()))
            same = same and not other.any()
        self.texts += 1
        if same:
            self.logits = max(self.logits, float(np.abs(logits).max()))
        else:
            self.undecided += 1

    @property
    def holds(self) -> bool:
        return self.widest <= _UNDECIDED and self.logits <= _MOST_LOGIT_DIFFERENCE and self.undecided <= _MOST_UNDECIDED * self.texts

    def __str__(self) -> str:
        text = f"{self.texts} texts, logits within {self.logits:.1e}, {self.leaves - self.other_leaves} of {self.leaves} leaves the same"
        return text if not self.undecided else (f"{text} (in {self.undecided} texts, whose logits are not compared, a test within "
                                                f"{self.widest:.1e} of its threshold went the other way)")


def _runtime(command: list[str], examples: Examples) -> list[dict]:
    second = examples.second or [None] * len(examples.first)
    lines = "".join(a + ("" if b is None else "\t" + b) + "\n" for a, b in zip(examples.first, second))
    found = [json.loads(line) for line in output_of(command, lines).splitlines()]
    return [f for f in found if "text" in f or "logits" in f]


@torch.no_grad()
def _ours(model: Encoder, task: Task, rows: Encoded, i: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits, and for every forest the leaves [tokens, trees]."""
    routes: list[torch.Tensor] = []
    types = torch.tensor([rows.types[i]]) if task.pair else None
    states = model(torch.tensor([rows.ids[i]]), types, routes=routes)
    return model.heads[task.name](pool(states[-1]))[0].numpy(), [r.numpy() for r in routes]


def compare(model: Encoder, task: Task, examples: Examples, tok, command: str, file: Path, head: str) -> Agreement:
    rows = encode(examples, tok, model.shape.positions)
    logits = _runtime([command, "classify", str(file), "--head", head, "--json"], examples)
    has_trees = any(spec.kind != "dense" for layer in model.parts for spec in layer)
    routes = _runtime([command, "routes", str(file), "--json"], examples) if has_trees else [None] * len(logits)
    result = Agreement()
    with Progress(len(rows.ids), f"comparing {task.name} (texts)") as progress:
        for i, (answer, taken) in enumerate(zip(logits, routes, strict=True)):
            mine, leaves = _ours(model, task, rows, i)
            result.add(leaves, taken["layers"] if taken else [], mine - np.array(answer["logits"]))
            progress.advance(1)
    return result


def _heads(model: Encoder, run: Run) -> dict[str, Task]:
    only = TASKS[run.finetune.tasks[0]] if run.finetune.tasks[:1] and run.finetune.tasks[0] in TASKS else None
    heads = {name: TASKS.get(name, only if name == "classifier" else None) for name in model.heads}
    return {name: task for name, task in heads.items() if task and not task.regression}


def run(run: Run) -> None:
    model = load(run.path / run.export.checkpoint, run.teacher).eval()
    heads = _heads(model, run)
    if not heads:
        raise ValueError(f"{run.path / run.export.checkpoint}: expected a head of a GLUE task, found "
                         f"{', '.join(model.heads) or 'none'}")
    tok = tokenizer(vocabulary_of(run))
    failed = []
    for name, task in heads.items():
        if name != task.name:
            model.heads[task.name] = model.heads[name]
        a = compare(model, task, load_task(run.finetune.data, task)[1], tok, run.export.command, target_of(run), name)
        say(f"{run.name} {task.name}: {a}")
        if not a.holds:
            failed.append(task.name)
    if failed:
        raise ValueError(f"{', '.join(failed)}: PyTorch and the runtime differ: expected logits within {_MOST_LOGIT_DIFFERENCE}, other "
                         f"leaves only by tests within {_UNDECIDED} of their threshold, in at most {_MOST_UNDECIDED:.0%} of the texts")
