"""table: the runs beside each other, Markdown: fidelity, and every task's mean over seeds with its 95 % interval."""
from __future__ import annotations

import json
import math
from pathlib import Path

from .common import say
from .config import Run
from .glue import TASKS
from .parts import operations_share, parse_parts

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom.
_T = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26]


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, _T[min(len(values) - 2, len(_T) - 1)] * deviation / math.sqrt(len(values))


def scores(run: Run, task: str) -> list[float]:
    """The headline metric in per cent, one a finished seed."""
    files = sorted((run.path / "tasks").glob(f"{task}-*.json"))
    return [100 * json.loads(f.read_text())[TASKS[task].headline] for f in files]


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean, interval = mean_and_interval(values)
    return f"{mean:.1f}" if math.isnan(interval) else f"{mean:.1f} ± {interval:.1f}"


def _fidelity(run: Run) -> list[str]:
    file = run.path / "evaluate.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    cosine = "1" if run.is_teacher else f"{result['cosine']:.4f}" if "cosine" in result else "-"
    error = "0" if run.is_teacher else f"{result['hidden_error'][-1]:.3f}" if "hidden_error" in result else "-"
    zero = f"{100 * result['stsb_zero_shot']['spearman']:.1f}" if "stsb_zero_shot" in result else "-"
    return [cosine, error, zero]


def _size(run: Run, dense_width: int) -> list[str]:
    if run.parts == "teacher":
        return [f"{dense_width}", f"{dense_width}", "100 %"]
    parts = parse_parts(run.parts)
    return [f"{sum(p.active() for p in parts):g}", f"{sum(p.stored() for p in parts)}",
            f"{100 * operations_share(parts, dense_width):.1f} %"]


def _parts(run: Run) -> str:
    parts = "dense" if run.parts == "teacher" else run.parts
    return f"{parts}, {len(run.fuse.drop_attention)} attentions fewer" if run.fuses else parts


def _time(run: Run) -> str:
    file = run.path / "bench.json"
    return f"{json.loads(file.read_text())['median_ms']:.2f}" if file.exists() else "-"


def table(runs: list[Run]) -> str:
    tasks = [t for t in TASKS if any(scores(r, t) for r in runs)]
    averages = {r.name: [mean_and_interval(scores(r, t))[0] for t in tasks if scores(r, t)] for r in runs}
    whole = {name: sum(v) / len(v) for name, v in averages.items() if len(v) == len(tasks) and v}
    teacher = next((whole.get(r.name) for r in runs if r.is_teacher), None)
    timed = any((r.path / "bench.json").exists() for r in runs)
    head = ["run", "FFN", "active", "stored", "operations", "cosine", "last error", "STS-B 0-shot",
            *(f"{t} {TASKS[t].headline}" for t in tasks), "average", "of teacher", *(["ms, 128 tokens"] if timed else [])]
    lines = [head, ["---"] * len(head)]
    for r in runs:
        width = json.loads((Path(r.teacher) / "config.json").read_text())["intermediate_size"]
        average = whole.get(r.name)
        share = f"{100 * average / teacher:.1f} %" if average and teacher else "-"
        lines.append([r.name, _parts(r), *_size(r, width), *_fidelity(r),
                      *(_cell(scores(r, t)) for t in tasks), f"{average:.1f}" if average else "-", share, *([_time(r)] if timed else [])])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run(runs: list[Run]) -> None:
    say(table(runs))
