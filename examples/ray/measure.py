#!/usr/bin/env python3
"""What a second worker is worth, and whether every row comes once when a worker is killed half-way.

  pip install . "ray[data]"
  python examples/ray/measure.py LINES.txt [--rows 200000] [--model models/minilm-trees.esp]

The lines, over and over until there are enough, become a folder of Parquet files; embed.py runs over it with one worker
and with two, of one thread each, and with two of which one is killed when half of the rows are written. Start-up is the
time of the same job over one row; throughput is rows by the time of the job less start-up.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.parquet as parquet

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "models" / "minilm-trees.esp"
WORKER = "ray::MapWorker(MapBatches(Embedder))"


def write_texts(folder: pathlib.Path, lines: list[str], rows: int, files: int = 8) -> None:
    folder.mkdir()
    texts = list(itertools.islice(itertools.cycle(lines), rows))
    per_file = -(-rows // files)
    for first in range(0, rows, per_file):
        part = texts[first : first + per_file]
        table = pa.table({"id": range(first, first + len(part)), "text": part})
        parquet.write_table(table, folder / f"{first:09}.parquet")


def read_ids(folder: pathlib.Path) -> list[int]:
    """Of all finished files; one that is being written has no footer yet."""
    ids: list[int] = []
    for path in folder.glob("*.parquet"):
        try:
            ids += parquet.read_table(path, columns=["id"])["id"].to_pylist()
        except (pa.ArrowInvalid, FileNotFoundError):
            continue
    return ids


class Job:
    """embed.py as a process, and the processes below it."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "embed.py", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={"RAY_worker_niceness": "0", **os.environ},  # Ray's own is 15: behind all else that runs
        )  # fmt: skip
        self.start = time.perf_counter()

    def wait(self) -> float:
        """Seconds until it has ended."""
        said, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError(said)
        return time.perf_counter() - self.start

    def below(self) -> dict[int, str]:
        """Process ids and command lines."""
        parents, names = {}, {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
        found, reached = {}, [self.process.pid]
        for parent in reached:
            children = [child for child, of in parents.items() if of == parent]
            reached += children
            found |= {child: names[child] for child in children}
        return found

    def workers(self) -> list[int]:
        return sorted(pid for pid, name in self.below().items() if name.startswith(WORKER))

    def wait_for_rows(self, output: pathlib.Path, rows: int) -> None:
        while len(read_ids(output)) < rows:
            if self.process.poll() is not None:
                raise RuntimeError(f"ended before {rows} rows were written:\n{self.process.stdout.read()}")
            time.sleep(0.2)

    def kill_worker(self) -> None:
        os.kill(self.workers()[0], signal.SIGKILL)

    def kill(self) -> None:
        """All of it, as when the machine goes down."""
        for pid in [self.process.pid, *self.below()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()


def mapped_memory(pid: int, file: str) -> tuple[int, int]:
    """Kilobytes of a mapped file that are resident, and this process's share of them."""
    resident = share = 0
    inside = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if " " in key:  # a mapping's first line: addresses, rights, the file
            inside = line.endswith(file)
        elif inside and key == "Rss":
            resident += int(value.split()[0])
        elif inside and key == "Pss":
            share += int(value.split()[0])
    return resident, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=200000)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    options = parser.parse_args()
    lines = [line for line in options.lines.read_text().splitlines() if line.strip()]
    print(f"{options.rows:,} rows of {len(set(lines)):,} distinct lines, {sum(len(x.split()) for x in lines) / len(lines):.1f} "
          f"words in the mean, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_texts(folder / "texts", lines, options.rows)
        write_texts(folder / "one", lines, 1)
        work, rate = {}, {}
        for workers in (1, 2):
            startup = Job(options.model, folder / "one", folder / f"one-{workers}", "--workers", workers).wait()
            output = folder / f"vectors-{workers}"
            job = Job(options.model, folder / "texts", output, "--workers", workers)
            job.wait_for_rows(output, options.rows // 2)
            memory = [mapped_memory(pid, options.model.name) for pid in job.workers()]
            seconds = job.wait()
            work[workers] = seconds - startup
            rate[workers] = options.rows / work[workers]
            once = sorted(read_ids(output)) == list(range(options.rows))
            print(f"{workers} worker(s): {seconds:.1f} s, {startup:.1f} s of them start-up, {rate[workers]:,.0f} rows a "
                  f"second; every row once: {once}; of the model's file "
                  + ", ".join(f"{rss / 1024:.1f} MB mapped (share {pss / 1024:.1f})" for rss, pss in memory), flush=True)
        print(f"two workers: {rate[2] / rate[1]:.2f} times one's throughput", flush=True)
        output = folder / "killed"
        job = Job(options.model, folder / "texts", output, "--workers", 2)
        job.wait_for_rows(output, options.rows // 2)
        job.kill_worker()
        seconds = job.wait()
        once = sorted(read_ids(output)) == list(range(options.rows))
        print(f"a worker killed half-way: {seconds:.1f} s; every row once: {once}; load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
