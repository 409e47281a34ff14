"""A run is one TOML file: what is grown from what, how it is trained, where it goes. Unknown keys are errors."""
from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path


class ConfigError(ValueError):
    pass


@dataclass
class Text:
    """Plain text, a paragraph a line (.txt or .txt.xz)."""
    files: list[str] = field(default_factory=list)
    cache: str = ""  # file of token ids made from them; default: FOLDER/../text.npz
    max_tokens: int = 128  # of a sequence, [CLS] and [SEP] included
    held_out: int = 2000  # sequences, for evaluation only (decoders: documents)
    separator: str = ""  # decoders: the line between two documents; empty: every line is one
    written: int = 0  # decoders: tokens of texts that the teacher writes itself, learned from beside the files


@dataclass
class Grow:
    tokens: int = 262144
    split: str = "crosscov"  # or regression, input-pca, random
    inputs: str = "teacher"  # or student: layers below are grown already, and each layer mends what they missed
    select: str = "variance"  # or explained: by what a neuron explains of what is still missing
    fit: str = "least-squares"  # or copy: output rows as they stand in the dense layer
    ridge: float = 0.01
    cold: bool = False  # the published initialisation instead (neuron trees)


@dataclass
class Fuse:
    """Layers without attention and fused feed-forward layers (arXiv 2503.18908); used where drop_attention names any."""
    drop_attention: list[int] = field(default_factory=list)  # layers, from 0
    runs: str = "pairs"  # a run takes the layer with attention before it too; auto: the paper's runs; none: nothing is fused
    source: str = ""  # folder inside the run's; default: grown, or the teacher itself


@dataclass
class Distil:
    tokens: int = 100_000_000
    batch_tokens: int = 65536  # of a step, over all GPUs
    micro_tokens: int = 32768  # of a forward pass, one sequence length each
    learning_rate: float = 6e-4
    warmup: float = 0.02  # share of the steps
    hidden: float = 1.0  # weight of the mean relative error of the layers' outputs
    pooled: float = 2.0  # weight of 1 - cosine of the mean-pooled vectors
    similarity: float = 10.0  # weight of the error of similarities between the texts of a batch
    logits: float = 1.0  # decoders, instead of pooled and similarity: weight of the divergence of the next token's probabilities
    closing: float = 0.0  # share of the steps, at the end, in which the weight of hidden falls to a tenth
    masked: float = 0.0  # weight of the masked-language-model loss, 15 % of the tokens
    train_embeddings: bool = False
    train_nodes: bool = True  # neuron trees only; the nodes of leaf trees never learn
    save_seconds: float = 120.0
    evaluate_tokens: int = 50_000_000


@dataclass
class Finetune:
    data: str = ""  # folder of GLUE tasks
    tasks: list[str] = field(default_factory=lambda: ["sst2", "mrpc", "stsb", "cola", "rte"])
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    task_seeds: dict[str, list] = field(default_factory=dict)  # of a task, instead of seeds
    epochs: float = 5.0
    steps: dict[str, int] = field(default_factory=dict)  # of a task, instead of epochs
    batch: int = 32
    batches: dict[str, int] = field(default_factory=dict)  # of a task, instead of batch
    learning_rate: float = 1e-4
    max_tokens: int = 128
    teacher_runs: str = ""  # folder of the fine-tuned teacher's run; empty: labels only
    soft: float = 0.5  # share of the teacher's answers in the loss; the rest is labels
    hidden: float = 1.0
    workers: int = 1  # processes, dealt out to the GPUs
    keep: list[str] = field(default_factory=list)  # TASK-SEED of fine-tuned checkpoints to keep; "all"


@dataclass
class Joint:
    """One encoder for several tasks and for sentence vectors: the tasks' batches beside distillation on text."""
    tasks: dict[str, int] = field(default_factory=lambda: {"sst2": 96, "mrpc": 24})  # rows of each in a step
    borrowed: dict[str, list] = field(default_factory=dict)  # of a task: others whose texts it learns too, as many rows a step
    steps: int = 3000
    text_tokens: int = 8192  # of a step
    learning_rate: float = 3e-4
    soft: float = 0.5  # share of the teacher's answers, as in finetune
    hidden: float = 1.0  # weight of its hidden states, pair tasks only; soft = 0 and hidden = 0 need no fine-tuned teachers
    task_weight: float = 0.3
    start: str = "distilled"  # folder inside the run's, whose heads are kept
    output: str = "joint"
    seed: int = 1  # whose fine-tuned teachers answer (finetune.teacher_runs)


@dataclass
class Export:
    command: str = "build/bin/espalier"
    precision: str = "int8"
    checkpoint: str = "distilled"  # folder inside the run's (parts = "teacher": the teacher itself)
    output: str = ""
    licence: str = ""
    origin: str = ""


@dataclass
class Run:
    name: str
    teacher: str  # Hugging Face BERT folder; fuse, distil and export: a Llama folder too
    parts: str  # as dense:64+leaf:1:5:64; "teacher": the dense model itself
    folder: str = ""  # default runs/NAME
    seed: int = 1
    device: str = "auto"
    text: Text = field(default_factory=Text)
    grow: Grow = field(default_factory=Grow)
    fuse: Fuse = field(default_factory=Fuse)
    distil: Distil = field(default_factory=Distil)
    finetune: Finetune = field(default_factory=Finetune)
    joint: Joint = field(default_factory=Joint)
    export: Export = field(default_factory=Export)

    @property
    def fuses(self) -> bool:
        return bool(self.fuse.drop_attention)

    @property
    def is_teacher(self) -> bool:
        return self.parts == "teacher" and not self.fuses

    @property
    def path(self) -> Path:
        return Path(self.folder or f"runs/{self.name}")


CHOICES = {
    "grow.split": ("crosscov", "regression", "input-pca", "random"),
    "grow.inputs": ("teacher", "student"),
    "grow.select": ("variance", "explained"),
    "fuse.runs": ("pairs", "auto", "none"),
    "grow.fit": ("least-squares", "copy"),
    "export.precision": ("f32", "f16", "bf16", "int8"),
}


def load_run(path: str, overrides: list[str] = ()) -> Run:
    return load_values(read_values(path, overrides), path)


def read_values(path: str, overrides: list[str]) -> dict:
    """A TOML file as it stands, with section.key=value put in."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    for text in overrides:
        _override(values, text)
    return values


def load_values(values: dict, path: str) -> Run:
    """path is named in messages."""
    return _build(Run, values, path, "")


def _override(values: dict, text: str) -> None:
    """text: section.key=value, the value as TOML has it, or a bare word."""
    key, _, value = text.partition("=")
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = parsed


def _build(kind: type, values: dict, path: str, prefix: str):
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{path}: {prefix}{key}: unknown; expected one of {', '.join(hints)}")
    arguments = {}
    for key, value in values.items():
        name = prefix + key
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {name}: expected a section, found {value!r}")
            arguments[key] = _build(hints[key], value, path, name + ".")
            continue
        wanted = typing.get_origin(hints[key]) or hints[key]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise ConfigError(f"{path}: {name}: expected {wanted.__name__}, found {value!r}")
        if name in CHOICES and value not in CHOICES[name]:
            raise ConfigError(f"{path}: {name}: expected {' or '.join(CHOICES[name])}, found {value!r}")
        arguments[key] = value
    missing = [f.name for f in dataclasses.fields(kind) if f.name not in arguments
               and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"{path}: {prefix}{missing[0]}: missing")
    return kind(**arguments)
