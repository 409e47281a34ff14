"""joint: one distilled encoder learns several tasks at once and stays a sentence embedder.

A step takes a batch of plain text, against the teacher's vectors and hidden states as in distil, and a batch of each
task, against labels and the answers of the teacher fine-tuned for it; of pairs, against its hidden states too: plain text
has no pairs, so vectors need not suffer. A small task may borrow the texts of others (joint.borrowed): they have no labels
for it, but its fine-tuned teacher answers them all the same. Writes FOLDER/joint with a head a task; started from such a folder
(joint.start), it goes on with the heads that are there.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from .checkpoint import load, load_teacher, save_trees
from .common import compute_type, corpus_of, device_of, say, vocabulary_of, write_json
from .config import Joint, Run
from .distil import losses
from .encoder import Encoder, pool
from .evaluate import zero_shot_similarity
from .fidelity import fidelity
from .finetune import Encoded, batches, collate, encode, hidden_loss, predict, soft_loss, task_loss
from .glue import TASKS, Task, load as load_task, metrics
from .optimizing import adamw, all_but_tables, take_step
from .progress import Progress
from .text import Sampler, tokenizer


@dataclass
class Lesson:
    task: Task
    rows: Encoded  # label NaN: borrowed
    wanted: torch.Tensor | None  # [rows, outputs]: the fine-tuned teacher's answers
    teacher: Encoder | None  # whose hidden states are learnt too: of pair tasks only
    dev: Encoded
    batches: Iterator[np.ndarray]


def _lessons(run: Run, device: torch.device, dtype: torch.dtype) -> list[Lesson]:
    tok = tokenizer(vocabulary_of(run))
    lessons = []
    for name, size in run.joint.tasks.items():
        if name not in TASKS:
            raise ValueError(f"joint.tasks: expected some of {', '.join(TASKS)}, found {name}")
        task = TASKS[name]
        rows, dev = (encode(r, tok, run.finetune.max_tokens) for r in load_task(run.finetune.data, task))
        borrowed = _borrowed(run, task, tok)
        drawn = batches(rows, size, run.joint.steps, run.seed)
        if borrowed is not None:
            drawn = _both(drawn, batches(borrowed, size, run.joint.steps, run.seed), len(rows.ids))
            rows = _joined([rows, borrowed])
        wanted = teacher = None
        learns_states = task.pair and run.joint.hidden > 0
        if run.joint.soft or learns_states:
            folder = Path(run.finetune.teacher_runs) / "tasks" / f"{name}-{run.joint.seed}"
            teacher = load(folder, run.teacher).to(device).to(dtype).requires_grad_(False)
        if run.joint.soft:
            wanted = torch.from_numpy(predict(teacher, task, rows, device, dtype)).to(device)
        lessons.append(Lesson(task, rows, wanted, teacher if learns_states else None, dev, drawn))
    return lessons


def _borrowed(run: Run, task: Task, tok) -> Encoded | None:
    """The training texts of the tasks that `task` borrows from, without labels."""
    lenders = run.joint.borrowed.get(task.name, [])
    for name in lenders:
        if name not in TASKS or name == task.name or TASKS[name].pair != task.pair:
            kind = "pairs" if task.pair else "single sentences"
            raise ValueError(f"joint.borrowed.{task.name}: expected other tasks of {kind}, found {name}")
    if not lenders:
        return None
    if not run.joint.soft:
        raise ValueError(f"joint.borrowed.{task.name}: expected joint.soft above 0, since borrowed texts have no labels")
    rows = _joined([encode(load_task(run.finetune.data, TASKS[name])[0], tok, run.finetune.max_tokens) for name in lenders])
    return Encoded(rows.ids, rows.types, np.full(len(rows.ids), np.nan, np.float32))


def _joined(rows: list[Encoded]) -> Encoded:
    return Encoded([i for r in rows for i in r.ids], [t for r in rows for t in r.types], np.concatenate([r.labels for r in rows]))


def _both(own: Iterator[np.ndarray], borrowed: Iterator[np.ndarray], first_borrowed: int) -> Iterator[np.ndarray]:
    for a, b in zip(own, borrowed):
        yield np.concatenate([a, b + first_borrowed])


def _task_losses(model: Encoder, lessons: list[Lesson], options: Joint, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The rows of all tasks go through the encoder together, then each to its head."""
    chosen = [next(lesson.batches) for lesson in lessons]
    together = _joined([Encoded([l.rows.ids[i] for i in c], [l.rows.types[i] for i in c], l.rows.labels[c])
                        for l, c in zip(lessons, chosen)])
    batch = collate(together, np.arange(len(together.ids)), device)
    states = model(batch.ids, batch.types, batch.mask, dtype)
    pooled = pool(states[-1], batch.mask)
    total, first = 0.0, 0
    for lesson, which in zip(lessons, chosen):
        mine = slice(first, first + len(which))
        first = mine.stop
        outputs = model.heads[lesson.task.name](pooled[mine])
        own = ~batch.labels[mine].isnan()
        loss = (1 - options.soft) * task_loss(lesson.task, outputs[own], batch.labels[mine][own])
        if lesson.wanted is not None:
            loss = loss + options.soft * soft_loss(lesson.task, outputs, lesson.wanted[torch.from_numpy(which).to(device)])
        if lesson.teacher is not None:
            with torch.no_grad():
                theirs = lesson.teacher(batch.ids[mine], batch.types[mine], batch.mask[mine], dtype)
            loss = loss + options.hidden * hidden_loss([x[mine] for x in states], model.counterparts(theirs), batch.mask[mine])
        total = total + loss
    return total


def run(run: Run) -> None:
    device = device_of(run)
    dtype = compute_type(device)
    torch.manual_seed(run.seed)
    teacher = load_teacher(run.teacher).to(device)
    sampler = Sampler(corpus_of(run, teacher), device, run.seed + 1)
    teacher = teacher.to(dtype).requires_grad_(False)
    model = load(run.path / run.joint.start, run.teacher).to(device)
    lessons = _lessons(run, device, dtype)
    for lesson in lessons:
        if lesson.task.name not in model.heads:
            model.add_head(lesson.task.name, lesson.task.labels)
    learning = all_but_tables(model)
    optimizer = adamw(learning, device)
    steps = run.joint.steps
    with Progress(steps, f"joint training of {run.name} (steps)") as progress:
        for step in range(steps):
            ids = sampler.batch(step, run.joint.text_tokens)
            with torch.no_grad():
                theirs = teacher(ids, dtype=dtype)
            loss = losses(model(ids, dtype=dtype), model.counterparts(theirs), run.distil, run.distil.hidden)
            loss = loss + run.joint.task_weight * _task_losses(model, lessons, run.joint, device, dtype)
            loss.backward()
            take_step(optimizer, learning, run.joint.learning_rate, step, steps, steps // 20)
            progress.advance(1)
    _report(run, model, teacher, sampler, lessons, device, dtype)


def _report(run: Run, model: Encoder, teacher: Encoder, sampler: Sampler, lessons: list[Lesson], device, dtype) -> None:
    result = {"name": run.name, "parts": run.parts, **fidelity(model, teacher, sampler.held_out(8192), dtype)}
    for lesson in lessons:
        outputs = predict(model, lesson.task, lesson.dev, device, dtype)
        result[lesson.task.name] = metrics(lesson.task, outputs, lesson.dev.labels)
        say(f"{run.name} {lesson.task.name}: {result[lesson.task.name]}")
    tok = tokenizer(vocabulary_of(run))
    result["stsb_zero_shot"] = zero_shot_similarity(model, run.finetune.data, tok, run.finetune.max_tokens, device, dtype)
    say(f"{run.name}: cosine {result['cosine']:.4f}, STS-B 0-shot {result['stsb_zero_shot']}")
    save_trees(run.path / run.joint.output, model, vocabulary_of(run))
    write_json(run.path / f"{run.joint.output}.json", result)
