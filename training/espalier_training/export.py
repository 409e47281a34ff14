"""export: a checkpoint of the run into a model file of the C++ runtime, by `espalier convert`."""
from __future__ import annotations

import subprocess
from pathlib import Path

from .common import say
from .config import Run


def run(run: Run) -> None:
    source = run.path / run.export.checkpoint
    target = Path(run.export.output) if run.export.output else run.path / f"{run.name}.esp"
    if not Path(run.export.command).is_file():
        raise ValueError(f"export.command: expected the built espalier command, found no file {run.export.command}")
    command = [run.export.command, "convert", str(source), "--base", run.teacher, "--precision", run.export.precision,
               "--name", run.name, "-o", str(target)]
    for option, value in (("--licence", run.export.licence), ("--origin", run.export.origin)):
        command += [option, value] if value else []
    done = subprocess.run(command)
    if done.returncode:
        raise ValueError(f"{' '.join(command)}: exit status {done.returncode}")
    say(f"{target}: from {source}")
