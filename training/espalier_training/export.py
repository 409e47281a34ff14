"""export: a checkpoint of the run into a model file of the C++ runtime, by `espalier convert`, and how long it takes there."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .common import say, write_json
from .config import Run
from .llama import is_llama

_TIMED_TOKENS = 128


def target_of(run: Run) -> Path:
    return Path(run.export.output) if run.export.output else run.path / f"{run.name}.esp"


def run(run: Run) -> None:
    source, target = Path(run.teacher) if run.is_teacher else run.path / run.export.checkpoint, target_of(run)
    run.path.mkdir(parents=True, exist_ok=True)
    if not Path(run.export.command).is_file():
        raise ValueError(f"export.command: expected the built espalier command, found no file {run.export.command}")
    base = [] if is_llama(source) else ["--base", run.teacher]
    command = [run.export.command, "convert", str(source), *base, "--precision", run.export.precision,
               "--name", run.name, "-o", str(target)]
    for option, value in (("--licence", run.export.licence), ("--origin", run.export.origin)):
        command += [option, value] if value else []
    output_of(command)
    positions = json.loads((source / "config.json").read_text())["max_position_embeddings"]
    tokens = min(_TIMED_TOKENS, positions // 2 if is_llama(source) else positions)  # a decoder's next tokens are timed too
    timed = json.loads(output_of([run.export.command, "bench", "model", str(target), "--ids", str(tokens), "--threads", "1", "--json"]))
    write_json(run.path / "bench.json", timed)
    say(f"{target}: from {source}; {tokens} tokens take {timed['median_ms']:.2f} ms on one thread")


def output_of(command: list[str], given: str | None = None) -> str:
    """What a command prints to stdout, with `given` on its stdin."""
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout
