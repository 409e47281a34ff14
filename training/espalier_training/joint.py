"""joint: one distilled encoder learns several tasks at once and stays a sentence embedder.

A step takes a batch of plain text, against the teacher's vectors and hidden states as in distil, and a batch of each
task, against labels and the answers of the teacher fine-tuned for it; of pairs, against its hidden states too: plain text
has no pairs, so vectors need not suffer. Writes FOLDER/joint with a head a task; started from such a folder
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
    rows: Encoded
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
        wanted = teacher = None
        learns_states = task.pair and run.joint.hidden > 0
        if run.joint.soft or learns_states:
            folder = Path(run.finetune.teacher_runs) / "tasks" / f"{name}-{run.joint.seed}"
            teacher = load(folder, run.teacher).to(device).to(dtype).requires_grad_(False)
        if run.joint.soft:
            wanted = torch.from_numpy(predict(teacher, task, rows, device, dtype)).to(device)
        lessons.append(Lesson(task, rows, wanted, teacher if learns_states else None, dev,
                              batches(rows, size, run.joint.steps, run.seed)))
    return lessons


def _task_losses(model: Encoder, lessons: list[Lesson], options: Joint, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The rows of all tasks go through the encoder together, then each to its head."""
    chosen = [next(lesson.batches) for lesson in lessons]
    together = Encoded([l.rows.ids[i] for l, c in zip(lessons, chosen) for i in c],
                       [l.rows.types[i] for l, c in zip(lessons, chosen) for i in c],
                       np.concatenate([l.rows.labels[c] for l, c in zip(lessons, chosen)]))
    batch = collate(together, np.arange(len(together.ids)), device)
    states = model(batch.ids, batch.types, batch.mask, dtype)
    pooled = pool(states[-1], batch.mask)
    total, first = 0.0, 0
    for lesson, which in zip(lessons, chosen):
        mine = slice(first, first + len(which))
        first = mine.stop
        outputs = model.heads[lesson.task.name](pooled[mine])
        loss = (1 - options.soft) * task_loss(lesson.task, outputs, batch.labels[mine])
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
