"""A BERT of two layers with random weights, and text that its vocabulary covers."""
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

WORDS = "the a tree leaf grows falls stands tall green old wind rain sun river stone bird sings sees finds hides".split()
HIDDEN, LAYERS, FFN = 32, 2, 64


def vocabulary() -> list[str]:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ","] + letters + ["##" + c for c in letters] + WORDS


def write_teacher(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    words = vocabulary()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "intermediate_size": FFN, "max_position_embeddings": 64, "type_vocab_size": 2, "vocab_size": len(words),
        "layer_norm_eps": 1e-12, "hidden_act": "gelu"}))
    rng = np.random.default_rng(seed)
    normal = lambda *shape: (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
    w = {f"embeddings.{n}_embeddings.weight": normal(r, HIDDEN) for n, r in (("word", len(words)), ("position", 64), ("token_type", 2))}
    norms = ["embeddings.LayerNorm"]
    for i in range(LAYERS):
        p = f"encoder.layer.{i}."
        for n in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            w[p + n + ".weight"], w[p + n + ".bias"] = normal(HIDDEN, HIDDEN), normal(HIDDEN)
        w[p + "intermediate.dense.weight"], w[p + "intermediate.dense.bias"] = normal(FFN, HIDDEN), normal(FFN)
        w[p + "output.dense.weight"], w[p + "output.dense.bias"] = normal(HIDDEN, FFN), normal(HIDDEN)
        norms += [p + "attention.output.LayerNorm", p + "output.LayerNorm"]
    for n in norms:
        w[n + ".weight"], w[n + ".bias"] = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
    save_file(w, str(folder / "model.safetensors"))
    return folder


def sentences(count: int, seed: int = 1) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(4, 12))).capitalize() + "." for _ in range(count)]


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture
def run_file(tmp_path, teacher_folder):
    """A function that writes RUN.toml with these settings and gives its path."""
    (tmp_path / "text.txt").write_text("\n".join(" ".join(sentences(6, seed)) for seed in range(150)) + "\n")
    _write_pairs(tmp_path / "glue" / "MRPC", "Quality\t#1 String\t#2 String", lambda i: i % 2)
    _write_pairs(tmp_path / "glue" / "STS-B", "score\tsentence1\tsentence2", lambda i: i % 6)

    def write(parts: str, name: str = "run", **sections) -> str:
        values = {
            "text": {"files": [str(tmp_path / "text.txt")], "cache": str(tmp_path / "text.npz"), "max_tokens": 32, "held_out": 20},
            "grow": {"tokens": 2048},
            "fuse": {},
            "distil": {"tokens": 8192, "batch_tokens": 512, "micro_tokens": 256, "learning_rate": 2e-3},
            "finetune": {"data": str(tmp_path / "glue"), "tasks": ["mrpc"], "seeds": [1], "steps": {"mrpc": 3}, "max_tokens": 32},
            "joint": {"tasks": {"mrpc": 8}, "steps": 3, "text_tokens": 256},
        }
        for section, changes in sections.items():
            values[section].update(changes)
        lines = [f'name = "{name}"', f'teacher = "{teacher_folder}"', f'parts = "{parts}"', f'folder = "{tmp_path / name}"', 'device = "cpu"']
        for section, keys in values.items():
            lines += [f"[{section}]"] + [f"{k} = {_toml(v)}" for k, v in keys.items()]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def _write_pairs(folder: Path, header: str, label) -> None:
    folder.mkdir(parents=True)
    for part, seed in (("train", 3), ("dev", 4)):
        pairs = zip(sentences(24, seed), sentences(24, seed + 10))
        (folder / f"{part}.tsv").write_text("\n".join([header, *(f"{label(i)}\t{a}\t{b}" for i, (a, b) in enumerate(pairs))]) + "\n")


@pytest.fixture(scope="session")
def command() -> str:
    path = ROOT / "build" / "bin" / "espalier"
    if not path.is_file():
        pytest.skip("build/bin/espalier is not built")
    return str(path)


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not (folder / "models" / "golden").is_dir():
        pytest.skip("no ../shared")
    return folder


@pytest.fixture(scope="session")
def base_model() -> Path:
    folder = os.environ.get("ESPALIER_BASE_MODEL", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ESPALIER_BASE_MODEL is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
