"""The GLUE tasks: their files, their labels and their official metrics."""
from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Task:
    name: str
    folder: str
    pair: bool  # two texts a row, else one
    labels: tuple[str, ...]  # in index order; empty: a score (STS-B, 0 to 5)
    headline: str  # the metric quoted in tables

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def outputs(self) -> int:
        """How many numbers a model gives a row: one a label, or one score."""
        return len(self.labels) or 1


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sst2", "SST-2", False, ("negative", "positive"), "accuracy"),
        Task("cola", "CoLA", False, ("unacceptable", "acceptable"), "matthews"),
        Task("mrpc", "MRPC", True, ("not_equivalent", "equivalent"), "accuracy"),
        Task("stsb", "STS-B", True, (), "spearman"),
        Task("rte", "RTE", True, ("entailment", "not_entailment"), "accuracy"),
        Task("qnli", "QNLI", True, ("entailment", "not_entailment"), "accuracy"),
        Task("qqp", "QQP", True, ("not_duplicate", "duplicate"), "accuracy"),
        Task("mnli", "MNLI", True, ("entailment", "neutral", "contradiction"), "accuracy"),
        Task("wnli", "WNLI", True, ("not_entailment", "entailment"), "accuracy"),
    )
}


@dataclass
class Examples:
    first: list[str]
    second: list[str] | None  # None: the task has one text a row
    labels: list[float]  # label indices, or scores
    skipped: int = 0  # rows left out because they have no label

    def __len__(self) -> int:
        return len(self.first)


# Where a task's files differ from sentence | sentence1 + sentence2, label: first text, second text, label.
_COLUMNS = {
    "mrpc": ("#1 String", "#2 String", "Quality"),
    "stsb": ("sentence1", "sentence2", "score"),
    "qnli": ("question", "sentence", "label"),
    "qqp": ("question1", "question2", "is_duplicate"),
    "mnli": ("sentence1", "sentence2", "gold_label"),
}
# The columns of files without a header row.
_POSITIONAL = {"cola": ["source", "label", "star", "sentence"]}
# What files have in place of a label that annotators did not agree on or that is withheld.
_NO_LABEL = ("", "-")


def _columns(task: Task) -> list[str]:
    standard = ("sentence1", "sentence2", "label") if task.pair else ("sentence", "", "label")
    return [name for name in _COLUMNS.get(task.name, standard) if name]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers from 1 and lines without their ends. Only LF ends a line: sentences may hold other separators."""
    number = 0
    try:
        with (lzma.open if path.suffix == ".xz" else open)(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{number}: expected UTF-8 text, got byte {error.object[error.start]:#04x}") from None
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: expected a whole xz file, got a broken one after line {number}: {error}") from None


def _label(text: str, task: Task) -> float:
    """A label's index or a score; ValueError that says what was expected."""
    if task.regression:
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not 0.0 <= score <= 5.0:
            raise ValueError(f"expected a score from 0 to 5, got '{text}'")
        return score
    if text.isascii() and text.isdigit() and int(text) < len(task.labels):
        return float(int(text))
    names = [label.lower() for label in task.labels]
    if text.lower() not in names:
        choices = ", ".join(f"{index} {label}" for index, label in enumerate(task.labels))
        raise ValueError(f"expected a label ({choices}), got '{text[:60]}'")
    return float(names.index(text.lower()))


def _header(path: Path, task: Task, lines: Iterator[tuple[int, str]]) -> list[str]:
    header = _POSITIONAL.get(task.name)
    if header is None:
        header = next(lines, (1, ""))[1].split("\t")
    for name in _columns(task):
        if header.count(name) != 1:
            got = ", ".join(header)[:200] or "nothing"
            raise ValueError(f"{path}:1: expected one column '{name}' in the header of a {task.name} file, got {got}")
    return header


def read(path: str | Path, task: Task, skip_unlabelled: bool = False) -> Examples:
    """The rows of a .tsv or .tsv.xz file; ValueError with file and line for a bad one.

    skip_unlabelled: rows whose label is missing, empty or "-" are counted in `skipped` instead of refused.
    """
    path = Path(path)
    lines = _lines(path)
    header = _header(path, task, lines)
    *texts, label = (header.index(name) for name in _columns(task))
    examples = Examples([], [] if task.pair else None, [])
    for number, line in lines:
        if not line:
            continue
        fields = line.split("\t")
        if skip_unlabelled and (len(fields) <= label or fields[label].strip() in _NO_LABEL):
            examples.skipped += 1
            continue
        # A tab too many shifts every column after it, so either way nothing of the row can be trusted.
        if len(fields) != len(header):
            raise ValueError(f"{path}:{number}: expected {len(header)} columns, got {len(fields)}")
        try:
            examples.labels.append(_label(fields[label].strip(), task))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        examples.first.append(fields[texts[0]])
        if examples.second is not None:
            examples.second.append(fields[texts[1]])
    if not examples.labels:
        raise ValueError(f"{path}: expected at least one row with a label, got none")
    return examples


def _find(folder: Path, part: str) -> Path | None:
    """The first by name: train.tsv comes before train_partial.tsv, dev_matched.tsv before dev_mismatched.tsv."""
    names = sorted([*folder.glob(f"{part}*.tsv"), *folder.glob(f"{part}*.tsv.xz")])
    return names[0] if names else None


def _is_dev(first: str, second: str) -> bool:
    """One row in ten, by its texts alone: the same whatever the file's order, and equal rows stay together."""
    return zlib.crc32(f"{first}\t{second}".encode()) % 10 == 0


def _split(rows: Examples) -> tuple[Examples, Examples]:
    second = rows.second if rows.second is not None else [""] * len(rows)
    in_dev = [_is_dev(*texts) for texts in zip(rows.first, second)]

    def part(dev: bool) -> Examples:
        kept = [row for row, is_dev in enumerate(in_dev) if is_dev == dev]
        return Examples(
            [rows.first[row] for row in kept],
            None if rows.second is None else [rows.second[row] for row in kept],
            [rows.labels[row] for row in kept],
        )

    train, dev = part(False), part(True)
    train.skipped = rows.skipped
    return train, dev


def load(folder: str | Path, task: Task) -> tuple[Examples | None, Examples]:
    """A task's training and development rows from folder/task.folder.

    No training file (QNLI): None. No dev file (QQP): about a tenth of the training rows, the same every time.
    """
    place = Path(folder) / task.folder
    train_path, dev_path = _find(place, "train"), _find(place, "dev")
    if train_path is None and dev_path is None:
        raise FileNotFoundError(f"{place}: expected train*.tsv[.xz] or dev*.tsv[.xz], got neither")
    train = None if train_path is None else read(train_path, task, skip_unlabelled=True)
    if dev_path is not None:
        return train, read(dev_path, task)
    train, dev = _split(train)
    if not train.labels or not dev.labels:
        raise ValueError(f"{train_path}: expected enough rows to split, got {len(train) + len(dev)}")
    return train, dev


def _accuracy(predicted: np.ndarray, expected: np.ndarray) -> float:
    return float(np.mean(predicted == expected))


def _f1(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Of label 1."""
    either = np.sum(predicted == 1) + np.sum(expected == 1)
    return float(2 * np.sum((predicted == 1) & (expected == 1)) / either) if either else 0.0


def _matthews(predicted: np.ndarray, expected: np.ndarray) -> float:
    """For any number of labels; counted in integers, so that "undefined" is an exact zero."""
    n = len(expected)
    labels = range(int(max(predicted.max(), expected.max())) + 1)
    counts = [(int(np.sum(predicted == label)), int(np.sum(expected == label))) for label in labels]
    joint = n * int(np.sum(predicted == expected)) - sum(p * e for p, e in counts)
    spread = (n * n - sum(p * p for p, _ in counts)) * (n * n - sum(e * e for _, e in counts))
    return joint / math.sqrt(spread) if spread else 0.0


def _deviations(values: np.ndarray) -> np.ndarray:
    """From the mean, scaled to a largest of 1 so that squares neither overflow nor vanish."""
    centred = values - values.mean()
    return centred / np.abs(centred).max()


def _pearson(predicted: np.ndarray, expected: np.ndarray) -> float:
    # Asked of the values: the rounded mean of equal values can differ from them.
    if np.all(predicted == predicted[0]) or np.all(expected == expected[0]):
        return 0.0
    p, e = _deviations(predicted), _deviations(expected)
    return float(np.clip(p @ e / math.sqrt((p @ p) * (e @ e)), -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1; equal values share their average rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _spearman(predicted: np.ndarray, expected: np.ndarray) -> float:
    return _pearson(_ranks(predicted), _ranks(expected))


_METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
# Where the official metrics are more than the headline.
_OFFICIAL = {"mrpc": ("accuracy", "f1"), "qqp": ("accuracy", "f1"), "stsb": ("pearson", "spearman")}


def metrics(task: Task, outputs: np.ndarray, labels: list[float] | np.ndarray) -> dict[str, float]:
    """The task's official metrics as fractions, 0.0 where one is undefined.

    outputs: logits [n, labels], or scores [n] or [n, 1]; labels: indices or scores [n].
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    expected = np.asarray(labels, dtype=np.float64)
    if task.regression and outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs[:, 0]
    wanted = expected.shape if task.regression else (*expected.shape, len(task.labels))
    if expected.ndim != 1 or outputs.shape != wanted or not len(expected):
        raise ValueError(
            f"{task.name}: expected a row of {task.outputs} outputs for each label,"
            f" got outputs {list(outputs.shape)} and labels {list(expected.shape)}"
        )
    # The argmax of a NaN is a label like any other: a diverged model would get a score.
    if not np.isfinite(outputs).all():
        raise ValueError(f"{task.name}: expected finite outputs, got NaN or infinity")
    predicted = outputs if task.regression else outputs.argmax(axis=1)
    names = _OFFICIAL.get(task.name, (task.headline,))
    return {name: _METRICS[name](predicted, expected) for name in names}
