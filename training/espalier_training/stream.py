"""Text for decoders: documents of a file one after another, each with the begin token in front, and texts the teacher wrote."""
from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from .decoder import Decoder, write
from .progress import Progress
from .text import lines_of

_TEXTS_AT_ONCE = 4096


def documents_of(files: list[str], separator: str) -> Iterator[str]:
    """A line each, or what stands between lines that are the separator."""
    for path in files:
        if not separator:
            yield from lines_of(path)
            continue
        lines: list[str] = []
        for line in itertools.chain(lines_of(path), [separator]):
            if line != separator:
                lines.append(line)
            elif lines:
                yield "\n".join(lines)
                lines = []


def written(teacher: Decoder, tokens: int, length: int, dtype: torch.dtype, seed: int) -> np.ndarray:
    """About `tokens` ids of texts of `length` that the teacher wrote: [n, length]."""
    pieces = []
    with Progress(max(1, tokens // length), "the teacher writes (texts)") as progress:
        for at in range(0, max(1, tokens // length), _TEXTS_AT_ONCE):
            count = min(_TEXTS_AT_ONCE, max(1, tokens // length) - at)
            pieces.append(write(teacher, count, length, dtype, seed + at).cpu().numpy().astype(np.int32))
            progress.advance(count)
    return np.concatenate(pieces)


@dataclass
class Stream:
    """ids: what is learned from, one document behind another; starts: of each. held_out: other documents, likewise."""
    ids: np.ndarray
    starts: np.ndarray
    held_out: np.ndarray


def read_stream(files: list[str], separator: str, tokenizer: Path, begin: int, end: int, held_out: int, cache: Path) -> Stream:
    """held_out: documents. The result is kept in `cache` (delete it when the files change)."""
    if not cache.exists():
        from tokenizers import Tokenizer
        if not files:
            raise ValueError("text.files: expected at least one file of plain text, found none")
        tok = Tokenizer.from_file(str(tokenizer))
        encodings = tok.encode_batch(list(documents_of(files, separator)), add_special_tokens=False)
        ids = [np.array([begin, *e.ids] + ([end] if end != begin else []), np.int32) for e in encodings]
        if len(ids) <= held_out:
            raise ValueError(f"{files[0]}: expected more than {held_out} documents (text.held_out), found {len(ids)}")
        order = np.random.default_rng(0).permutation(len(ids))
        ids = [ids[i] for i in order]
        kept = ids[: len(ids) - held_out]
        part = cache.with_suffix(".part.npz")
        part.parent.mkdir(parents=True, exist_ok=True)
        np.savez(part, ids=np.concatenate(kept), starts=np.cumsum([0] + [len(d) for d in kept[:-1]]),
                 held_out=np.concatenate(ids[len(ids) - held_out:]))
        os.replace(part, cache)
    stored = np.load(cache)
    return Stream(stored["ids"], stored["starts"], stored["held_out"])


class Windows:
    """Batches of one length, each row from a document's begin on, into the next if it is short. Batch i depends on seed and i alone."""

    def __init__(self, stream: Stream, texts: np.ndarray | None, length: int, device: torch.device, seed: int):
        """texts: those the teacher wrote, [n, length]: documents like the others."""
        ids, starts = stream.ids, stream.starts
        if texts is not None:
            starts = np.concatenate([starts, len(ids) + np.arange(len(texts)) * texts.shape[1]])
            ids = np.concatenate([ids, texts.ravel()])
        starts = starts[starts + length <= len(ids)]
        if not len(starts) or len(stream.held_out) < length:
            raise ValueError(f"text: expected {length} tokens or more to learn from and to hold out, found {len(ids)} and {len(stream.held_out)}")
        self.length, self.seed, self.device = length, seed, device
        self.ids, self.starts = torch.from_numpy(ids).to(device), torch.from_numpy(starts).to(device)
        rows = len(stream.held_out) // length
        self.others = torch.from_numpy(stream.held_out[: rows * length].reshape(rows, length)).to(device).long()

    def batch(self, index: int, tokens: int) -> torch.Tensor:
        rng = np.random.default_rng((self.seed, index))
        chosen = torch.from_numpy(rng.integers(0, len(self.starts), max(1, tokens // self.length))).to(self.device)
        return self.ids[self.starts[chosen][:, None] + torch.arange(self.length, device=self.device)].long()

    def held_out(self, tokens: int) -> Iterator[torch.Tensor]:
        return iter(self.others.split(max(1, tokens // self.length)))
