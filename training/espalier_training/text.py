"""Plain text as sequences of token ids: whole sentences up to a drawn length, each token of the corpus in one sequence.

Sequences of equal length form a batch, so training pads nothing and masks nothing.
"""
from __future__ import annotations

import itertools
import lzma
import multiprocessing
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from .progress import Progress

CLS, SEP, MASK = "[CLS]", "[SEP]", "[MASK]"
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(A-Z])")
_LINES_AT_ONCE = 2000
_SHORTEST = 6  # text tokens; what is shorter says little


def tokenizer(vocabulary: str | Path, lower_case: bool = True):
    """Hugging Face's WordPiece, neither padding nor cutting."""
    from tokenizers import BertWordPieceTokenizer
    return BertWordPieceTokenizer(str(vocabulary), lowercase=lower_case)


@dataclass
class Corpus:
    """ids: all text tokens; starts, lengths: of the sequences in it, without [CLS] and [SEP]. Held-out ones come last."""
    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    held_out: int
    cls: int
    sep: int
    mask: int

    @property
    def tokens(self) -> int:
        return len(self.ids) + 2 * len(self.starts)


def lines_of(path: str) -> Iterator[str]:
    opener = lzma.open if str(path).endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8", errors="strict") as file:
        for line in file:
            line = line.strip()
            if line:
                yield line


def _batches(files: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for path in files:
        for line in lines_of(path):
            batch.append(line)
            if len(batch) == _LINES_AT_ONCE:
                yield batch
                batch = []
    if batch:
        yield batch


def read_corpus(files: list[str], vocabulary: str | Path, cache: Path, max_tokens: int, held_out: int, seed: int = 0,
                lower_case: bool = True) -> Corpus:
    """Tokenises the files once; the result is kept in `cache` (delete it when the files change)."""
    tok = tokenizer(vocabulary, lower_case)
    special = [tok.token_to_id(t) for t in (CLS, SEP, MASK)]
    if None in special:
        raise ValueError(f"{vocabulary}: expected {CLS}, {SEP} and {MASK}, found ids {special}")
    if not cache.exists():
        if not files:
            raise ValueError("text.files: expected at least one file of plain text, found none")
        _tokenise(files, vocabulary, lower_case, cache, max_tokens - 2, seed)
    stored = np.load(cache)
    if held_out >= len(stored["starts"]):
        raise ValueError(f"{cache}: expected more than {held_out} sequences (text.held_out), found {len(stored['starts'])}")
    return Corpus(stored["ids"], stored["starts"], stored["lengths"], held_out, *special)


_worker_tokenizer = None


def _start_worker(vocabulary: str, lower_case: bool) -> None:
    global _worker_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_tokenizer = tokenizer(vocabulary, lower_case)


def _tokenise_batch(task: tuple[int, list[str], int]) -> tuple[int, np.ndarray, np.ndarray]:
    """Lines -> how many, their ids one after another, the lengths of the sequences cut from them."""
    seed, lines, longest = task
    sentences, paragraph = [], []
    for i, line in enumerate(lines):
        pieces = _SENTENCE_END.split(line)
        sentences += pieces
        paragraph += [i] * len(pieces)
    ids = [e.ids for e in _worker_tokenizer.encode_batch(sentences, add_special_tokens=False)]
    small = _worker_tokenizer.get_vocab_size() < 65536
    flat = np.fromiter(itertools.chain.from_iterable(ids), np.uint16 if small else np.int32)
    return len(lines), flat, _cut([len(p) for p in ids], paragraph, longest, np.random.default_rng(seed))


def _tokenise(files: list[str], vocabulary: str | Path, lower_case: bool, cache: Path, longest: int, seed: int) -> None:
    ids, lengths = [], []
    tasks = ((seed + i, lines, longest) for i, lines in enumerate(_batches(files)))
    with multiprocessing.Pool(os.cpu_count(), _start_worker, (str(vocabulary), lower_case)) as pool, \
            Progress(sum(1 for f in files for _ in lines_of(f)), "tokenising (paragraphs)") as progress:
        for count, some_ids, some_lengths in pool.imap(_tokenise_batch, tasks):
            ids.append(some_ids)
            lengths.append(some_lengths)
            progress.advance(count)
    lengths = np.concatenate(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    order = np.random.default_rng(seed).permutation(len(starts))  # so that the held-out ones come from everywhere
    keep = order[lengths[order] >= min(_SHORTEST, longest)]
    cache.parent.mkdir(parents=True, exist_ok=True)
    part = cache.with_suffix(".part.npz")
    np.savez(part, ids=np.concatenate(ids), starts=starts[keep], lengths=lengths[keep].astype(np.int32))
    os.replace(part, cache)


def _cut(sentences: list[int], paragraph: list[int], longest: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths of consecutive sequences: sentences of one paragraph until a drawn length is reached, longer ones cut."""
    lengths, open_length, target = [], 0, int(rng.integers(_SHORTEST, longest + 1))

    def close():
        nonlocal open_length, target
        if open_length:
            lengths.append(open_length)
        open_length, target = 0, int(rng.integers(_SHORTEST, longest + 1))

    for i, tokens in enumerate(sentences):
        if i and paragraph[i] != paragraph[i - 1] or open_length + tokens > longest:
            close()
        while tokens > longest:
            lengths.append(longest)
            tokens -= longest
        open_length += tokens
        if open_length >= target:
            close()
    close()
    return np.array(lengths, np.int64)


class Sampler:
    """Batches of one sequence length each, drawn by tokens. Batch i depends on seed and i alone, so runs resume."""

    def __init__(self, corpus: Corpus, device: torch.device, seed: int):
        self.corpus, self.device, self.seed = corpus, device, seed
        self.ids = torch.from_numpy(corpus.ids.astype(np.int32)).to(device)
        n = len(corpus.starts) - corpus.held_out
        order = np.argsort(corpus.lengths[:n], kind="stable")
        self.sizes, first = np.unique(corpus.lengths[:n][order], return_index=True)
        self.first = list(first) + [n]
        self.starts = torch.from_numpy(corpus.starts[:n][order]).to(device)
        tokens = np.diff(self.first) * (self.sizes + 2)
        self.share = tokens / tokens.sum()

    def batch(self, index: int, tokens: int) -> torch.Tensor:
        """About `tokens` ids as [B, S], [CLS] and [SEP] included."""
        rng = np.random.default_rng((self.seed, index))
        which = int(rng.choice(len(self.sizes), p=self.share))
        length = int(self.sizes[which])
        count = max(1, tokens // (length + 2))
        rows = torch.from_numpy(rng.integers(self.first[which], self.first[which + 1], count)).to(self.device)
        return self._gather(self.starts[rows], length)

    def _gather(self, starts: torch.Tensor, length: int) -> torch.Tensor:
        inner = self.ids[starts[:, None] + torch.arange(length, device=self.device)].long()
        edge = torch.full((len(starts), 1), self.corpus.cls, device=self.device)
        return torch.cat([edge, inner, torch.full_like(edge, self.corpus.sep)], 1)

    def held_out(self, tokens: int) -> Iterator[torch.Tensor]:
        """The held-out sequences, equal lengths together, about `tokens` at a time."""
        c = self.corpus
        starts, lengths = c.starts[len(c.starts) - c.held_out:], c.lengths[len(c.starts) - c.held_out:]
        for length in np.unique(lengths):
            of = torch.from_numpy(starts[lengths == length]).to(self.device)
            for piece in of.split(max(1, tokens // (int(length) + 2))):
                yield self._gather(piece, int(length))
