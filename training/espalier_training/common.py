"""What every command needs: the device, the text, the vocabulary, files that are never half written."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from .config import Run
from .encoder import Encoder
from .text import Corpus, read_corpus


def say(text: str) -> None:
    print(text, flush=True)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_of(run: Run) -> torch.device:
    if run.device != "auto":
        return torch.device(run.device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
        # cuDNN's attention plans anew for every shape, some 7 ms each, and texts of every length come by here.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")


def compute_type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def vocabulary_of(run: Run) -> Path:
    path = Path(run.teacher) / "vocab.txt"
    if not path.is_file():
        raise ValueError(f"{run.teacher}: expected vocab.txt, found none")
    return path


def cache_of(run: Run) -> Path:
    return Path(run.text.cache) if run.text.cache else run.path.parent / "text.npz"


def corpus_of(run: Run, teacher: Encoder) -> Corpus:
    return read_corpus(run.text.files, vocabulary_of(run), cache_of(run), run.text.max_tokens, run.text.held_out,
                       lower_case=teacher.shape.lower_case)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + f".part{os.getpid()}")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
