"""finetune: GLUE tasks on a distilled model, with the answers of the fine-tuned dense teacher beside the labels.

Every task and seed is a job of its own; finished jobs are not repeated. Several processes share the jobs of a run.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from .checkpoint import load, load_teacher, save_trees
from .common import compute_type, device_of, say, vocabulary_of, write_json
from .config import Finetune, Run
from .encoder import Encoder, pool
from .fidelity import relative_error
from .glue import TASKS, Examples, Task, load as load_task, metrics
from .jobs import Job, share
from .optimizing import adamw, all_but_tables, take_step
from .text import CLS, SEP, tokenizer


@dataclass
class Encoded:
    """Rows of a task as ids: of one length each, [CLS] first [SEP] or [CLS] first [SEP] second [SEP]."""
    ids: list[list[int]]
    types: list[list[int]]
    labels: np.ndarray


def encode(examples: Examples, tok, longest: int) -> Encoded:
    cls, sep = tok.token_to_id(CLS), tok.token_to_id(SEP)
    plain = lambda texts: [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
    first = plain(examples.first)
    second = plain(examples.second) if examples.second is not None else [None] * len(first)
    ids, types = [], []
    for a, b in zip(first, second):
        a, b = _shorten(a, b, longest)
        ids.append([cls, *a, sep] + ([*b, sep] if b is not None else []))
        types.append([0] * (len(a) + 2) + ([1] * (len(b) + 1) if b is not None else []))
    return Encoded(ids, types, np.array(examples.labels, np.float32))


def _shorten(a: list[int], b: list[int] | None, longest: int):
    """The longer of the two loses its end first, as Hugging Face's longest_first has it."""
    if b is None:
        return a[: longest - 2], None
    room = longest - 3
    if len(a) + len(b) > room:
        half = room // 2
        keep_a = min(len(a), max(room - len(b), room - half))
        a, b = a[:keep_a], b[: room - keep_a]
    return a, b


@dataclass
class Batch:
    ids: torch.Tensor  # [B, S], as types and mask
    types: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor  # [B]


def collate(rows: Encoded, which: np.ndarray, device: torch.device) -> Batch:
    longest = max(len(rows.ids[i]) for i in which)
    longest = min(-(-longest // 8) * 8, 512)  # multiples of 8 are what GPU kernels like
    ids, types, mask = (np.zeros((len(which), longest), np.int64) for _ in range(3))
    for r, i in enumerate(which):
        n = len(rows.ids[i])
        ids[r, :n], types[r, :n], mask[r, :n] = rows.ids[i], rows.types[i], 1
    move = lambda a: torch.from_numpy(a).to(device)
    return Batch(move(ids), move(types), move(mask).bool(), move(rows.labels[which]))


def forward(model: Encoder, task: Task, batch: Batch, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    states = model(batch.ids, batch.types if task.pair else None, batch.mask, dtype)
    return states, model.heads[task.name](pool(states[-1], batch.mask))


def task_loss(task: Task, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(outputs[:, 0], labels) if task.regression else F.cross_entropy(outputs, labels.long())


def soft_loss(task: Task, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Against the teacher's outputs: its score, or its probabilities."""
    if task.regression:
        return F.mse_loss(outputs, wanted)
    return -(F.softmax(wanted, 1) * F.log_softmax(outputs, 1)).sum(1).mean()


def hidden_loss(ours: list[torch.Tensor], theirs: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Mean relative error of the layers' outputs, padding left out."""
    m = mask[..., None]
    return sum(relative_error(a * m, b * m) for a, b in zip(ours[1:], theirs[1:])) / (len(ours) - 1)


def by_length(rows: Encoded, size: int) -> Iterator[np.ndarray]:
    """Row numbers, rows of like lengths together."""
    order = np.argsort([len(i) for i in rows.ids], kind="stable")
    for at in range(0, len(order), size):
        yield order[at: at + size]


@torch.no_grad()
def predict(model: Encoder, task: Task, rows: Encoded, device: torch.device, dtype: torch.dtype, batch: int = 128) -> np.ndarray:
    """Outputs [n, labels or 1] in the rows' order."""
    model.eval()
    out = np.zeros((len(rows.ids), task.outputs), np.float32)
    for which in by_length(rows, batch):
        out[which] = forward(model, task, collate(rows, which, device), dtype)[1].float().cpu().numpy()
    return out


def batches(rows: Encoded, size: int, steps: int, seed: int):
    """Shuffled epochs; rows of like lengths share a batch, so little is padded."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(i) for i in rows.ids])
    done = 0
    while done < steps:
        shuffled = rng.permutation(len(lengths))
        pools = [shuffled[i: i + 50 * size] for i in range(0, len(shuffled), 50 * size)]
        epoch = [p[np.argsort(lengths[p], kind="stable")][i: i + size] for p in pools for i in range(0, len(p), size)]
        for i in rng.permutation(len(epoch))[: steps - done]:
            yield epoch[i]
            done += 1


def train(model: Encoder, teacher: Encoder | None, task: Task, rows: Encoded, options: Finetune, seed: int,
          device: torch.device, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    model.add_head(task.name, task.labels)
    learning = all_but_tables(model)
    optimizer = adamw(learning, device)
    size = options.batches.get(task.name, options.batch)
    steps = options.steps.get(task.name) or max(1, int(options.epochs * len(rows.ids) / size))
    for step, which in enumerate(batches(rows, size, steps, seed)):
        batch = collate(rows, which, device)
        ours, outputs = forward(model, task, batch, dtype)
        loss = task_loss(task, outputs, batch.labels)
        if teacher is not None:
            with torch.no_grad():
                theirs, wanted = forward(teacher, task, batch, dtype)
            loss = (1 - options.soft) * loss + options.soft * soft_loss(task, outputs, wanted)
            loss = loss + options.hidden * hidden_loss(ours, model.counterparts(theirs), batch.mask)
        loss.backward()
        take_step(optimizer, learning, options.learning_rate, step, steps, steps // 10)


def starting_model(run: Run) -> Encoder:
    if run.is_teacher:
        model = load_teacher(run.teacher)
        model.own_tables = False
        return model
    return load(run.path / "distilled", run.teacher)


def train_and_score(run: Run, task: Task, seed: int) -> dict:
    device = device_of(run)
    dtype = compute_type(device)
    options = run.finetune
    tok = tokenizer(vocabulary_of(run))
    train_rows, dev_rows = load_task(options.data, task)
    if train_rows is None:
        raise ValueError(f"{options.data}/{task.folder}: expected a training file, found none")
    train_rows, dev_rows = (encode(r, tok, options.max_tokens) for r in (train_rows, dev_rows))
    teacher = None
    if options.teacher_runs:
        folder = Path(options.teacher_runs) / "tasks" / f"{task.name}-{seed}"
        teacher = load(folder, run.teacher).to(device).to(dtype).requires_grad_(False).eval()
    model = starting_model(run).to(device)
    train(model, teacher, task, train_rows, options, seed, device, dtype)
    outputs = predict(model, task, dev_rows, device, dtype)
    name = f"{task.name}-{seed}"
    if name in options.keep or "all" in options.keep:
        save_trees(run.path / "tasks" / name, model, vocabulary_of(run))
    return {"run": run.name, "task": task.name, "seed": seed, "n": len(dev_rows.labels),
            **metrics(task, outputs, dev_rows.labels)}


def plan(runs: list[Run]) -> list[tuple[Run, Task, int]]:
    """First seeds first, so that a list that is cut short has every run and task."""
    jobs = []
    for run in runs:
        for name in run.finetune.tasks:
            if name not in TASKS:
                raise ValueError(f"finetune.tasks: expected some of {', '.join(TASKS)}, found {name}")
            seeds = run.finetune.task_seeds.get(name, run.finetune.seeds)
            jobs += [(i, run, TASKS[name], seed) for i, seed in enumerate(seeds)]
    return [job[1:] for job in sorted(jobs, key=lambda job: job[0])]


def _tune(run: Run, task: Task, seed: int, file: Path) -> None:
    result = train_and_score(run, task, seed)
    write_json(file, result)
    say(f"{run.name} {task.name} seed {seed}: {100 * result[task.headline]:.2f} {task.headline}")


def jobs_of(runs: list[Run]) -> list[Job]:
    jobs = []
    for run, task, seed in plan(runs):
        file = run.path / "tasks" / f"{task.name}-{seed}.json"
        jobs.append(Job(f"{run.name} {task.name} seed {seed}", file,
                        lambda run=run, task=task, seed=seed, file=file: _tune(run, task, seed, file)))
    return jobs


def run(runs: list[Run]) -> None:
    share(jobs_of(runs), max(run.finetune.workers for run in runs))
