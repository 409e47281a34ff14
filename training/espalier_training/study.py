"""study: several runs and their table by one command. A study is a TOML file: what all runs share, and the runs.

    [[run]]
    name = "trees"
    parts = "leaf:1:6:128"

(`only = ["trees"]` takes some of them). Each run is grown, distilled, evaluated and fine-tuned in FOLDER/NAME; fine-tuning
waits for the teacher's. Killed and started again, it goes on with what is missing. Where the runtime is built
(export.command), each is then exported and timed in it, one after the other, with nothing beside them.
"""
from __future__ import annotations

import copy
from pathlib import Path

from . import distil, evaluate, export, finetune, fuse, grow
from .checkpoint import load_teacher
from .common import corpus_of, say
from .config import ConfigError, Run, load_values, read_values
from .jobs import Job, is_worker, share
from .table import table

TEACHER = "teacher"


def load_study(path: str, overrides: list[str]) -> tuple[list[Run], int]:
    """The runs, the teacher first, and how many processes share them."""
    values = read_values(path, overrides)
    rows, workers, only = values.pop("run", []), values.pop("workers", 1), values.pop("only", [])
    folder = Path(values.pop("folder", "runs"))
    if not rows or not isinstance(workers, int):
        raise ConfigError(f"{path}: expected workers = NUMBER and at least one [[run]]")
    names = [str(row.get("name", "")) for row in rows]
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(f"{path}: only: expected some of {', '.join(names)}, found {', '.join(unknown)}")
    rows = [row for row, name in zip(rows, names) if not only or name in only]
    values.setdefault("text", {}).setdefault("cache", str(folder / "text.npz"))
    runs = []
    for row in [{"name": TEACHER, "parts": TEACHER, "finetune": {"keep": ["all"]}}, *rows]:
        run = _merged(values, row)
        if row["name"] == TEACHER:
            run.pop("fuse", None)  # of the students alone
        run["folder"] = str(folder / str(row.get("name", "")))
        if row["name"] != TEACHER:
            run.setdefault("finetune", {})["teacher_runs"] = str(folder / TEACHER)
        runs.append(load_values(run, path))
    if len({r.name for r in runs}) < len(runs):
        raise ConfigError(f"{path}: run: expected names that differ, found {', '.join(r.name for r in runs)}")
    return runs, workers


def _merged(shared: dict, row: dict) -> dict:
    merged = copy.deepcopy(shared)
    for key, value in row.items():
        if isinstance(value, dict):
            merged.setdefault(key, {}).update(value)
        else:
            merged[key] = value
    return merged


def _distilled(run: Run) -> None:
    if run.parts != TEACHER and not (run.path / "grown").exists():
        grow.run(run)
    if run.fuses and not (run.path / "fused").exists():
        fuse.run(run)
    distil.run(run)


def jobs_of(runs: list[Run]) -> list[Job]:
    """In the order in which free processes take them: what others wait for comes first."""
    teacher, *students = runs
    cache = Path(teacher.text.cache)
    text = Job("text", cache, lambda: corpus_of(teacher, load_teacher(teacher.teacher)))
    of_teacher, of_students = finetune.jobs_of([teacher]), finetune.jobs_of(students)
    answers = {job.done.name: job.done for job in of_teacher}
    jobs = [text] + [Job(f"distil {r.name}", r.path / "distil.json", lambda r=r: _distilled(r), [cache], lane)
                     for lane, r in enumerate(students)]
    jobs += of_teacher
    jobs += [Job(f"evaluate {r.name}", r.path / "evaluate.json", lambda r=r: evaluate.run(r),
                 [] if r is teacher else [r.path / "distil.json"]) for r in runs]
    for job in of_students:  # RUN/tasks/TASK-SEED.json
        job.needs = [job.done.parents[1] / "distil.json"] + [f for name, f in answers.items() if name == job.done.name]
    return jobs + of_students


def run(path: str, overrides: list[str]) -> None:
    runs, workers = load_study(path, overrides)
    for r in runs:
        r.path.mkdir(parents=True, exist_ok=True)
    share(jobs_of(runs), workers)
    if not is_worker():
        for r in runs:
            if Path(r.export.command).is_file() and not (r.path / "bench.json").exists():
                export.run(r)
        text = table(runs)
        (runs[0].path.parent / "table.md").write_text(text + "\n")
        say(text)
