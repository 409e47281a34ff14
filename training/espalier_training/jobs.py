"""Jobs that several processes share: each takes the first that is ready, undone and unclaimed, until none is left.

What is done is told by a job's file alone, so a run that was killed goes on where it was.
"""
from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from .common import warn

_WORKER = "ESPALIER_TRAINING_WORKER"  # set in the processes that `share` starts: LANE/LANES
_LOOK_AGAIN_SECONDS = 1.0


@dataclass
class Job:
    name: str
    done: Path  # exists once the job is done
    work: Callable[[], None]
    needs: list[Path] = field(default_factory=list)  # files of other jobs
    lane: int | None = None  # of a job that fills a GPU: jobs of one lane stay on one GPU, so that each gets its share

    @property
    def claim_file(self) -> Path:
        return self.done.with_name(self.done.name + ".claim")

    def claim(self) -> bool:
        """True for one process only: whoever makes the file beside the result."""
        self.claim_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self.claim_file, os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            return False


def _ready(job: Job) -> bool:
    return not job.done.exists() and not job.claim_file.exists() and all(f.exists() for f in job.needs)


def _own(job: Job) -> bool:
    """Whether this process may take it: workers are dealt out to as many lanes as there are GPUs."""
    lane, lanes = (int(n) for n in os.environ.get(_WORKER, "0/1").split("/"))
    return job.lane is None or job.lane % lanes == lane


def _reachable(jobs: list[Job]) -> bool:
    """Whether a job may still become ready: one that is under way, or that another lane may take, makes a file it needs."""
    missing = {f for j in jobs if not j.done.exists() and not j.claim_file.exists() for f in j.needs if not f.exists()}
    under_way = lambda j: j.claim_file.exists() and not _failed(j).exists()
    return any(j.done in missing and (under_way(j) or (_ready(j) and not _own(j))) for j in jobs)


def _failed(job: Job) -> Path:
    return job.done.with_name(job.done.name + ".failed")


def work(jobs: list[Job]) -> None:
    failures = 0
    while True:
        job = next((j for j in jobs if _own(j) and _ready(j) and j.claim()), None)
        if job is None:
            if not _reachable(jobs):
                break
            time.sleep(_LOOK_AGAIN_SECONDS)
            continue
        try:
            job.work()
        except (ValueError, OSError, RuntimeError) as error:  # the other jobs may be well
            warn(f"{job.name}: {error}")
            _failed(job).touch()
            failures += 1
    if failures:
        raise ValueError(f"{failures} jobs failed")


def is_worker() -> bool:
    return bool(os.environ.get(_WORKER))


def share(jobs: list[Job], workers: int) -> None:
    """Does the jobs in `workers` processes that are dealt out to the visible GPUs. Each runs this command again."""
    if not is_worker():
        _forget(jobs)
    if is_worker() or workers <= 1:
        work(jobs)
        return
    gpus = visible_gpus()
    lanes = max(1, min(len(gpus), workers))  # a lane without a process would never be worked on
    children = []
    for i in range(workers):
        environment = {**os.environ, _WORKER: f"{i % lanes}/{lanes}", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[i % lanes]
        children.append(subprocess.Popen([sys.executable, "-m", "espalier_training", *sys.argv[1:]], env=environment))
    failed = sum(child.wait() != 0 for child in children)
    if failed:
        raise ValueError(f"{failed} of {workers} processes report failures; see their messages above")


def _forget(jobs: list[Job]) -> None:
    """Claims and failures of a run that ended."""
    for job in jobs:
        job.claim_file.unlink(missing_ok=True)
        _failed(job).unlink(missing_ok=True)


def visible_gpus() -> list[str]:
    import torch
    named = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
    return named or [str(g) for g in range(torch.cuda.device_count())]
