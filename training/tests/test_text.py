"""Sequences from text: nothing lost, nothing twice, the same batch for the same seed and index."""
import lzma

import numpy as np
import pytest
import torch

from conftest import sentences
from espalier_training.text import Sampler, _cut, read_corpus, tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def corpus(tmp_path, teacher_folder):
    for i, opener in enumerate((open, lzma.open)):
        with opener(tmp_path / ("a.txt" if i == 0 else "b.txt.xz"), "wt") as f:
            f.write("\n".join(" ".join(sentences(7, seed + 100 * i)) for seed in range(40)) + "\n\n")
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt.xz")]
    return read_corpus(files, teacher_folder / "vocab.txt", tmp_path / "cache.npz", 32, 10), files


def test_every_token_is_in_one_sequence_in_the_order_of_the_text(corpus, teacher_folder):
    c, files = corpus
    text = "".join((lzma.open if f.endswith("xz") else open)(f, "rt").read() for f in files)
    wanted = tokenizer(teacher_folder / "vocab.txt").encode(text, add_special_tokens=False).ids
    assert c.ids.tolist() == wanted
    order = np.argsort(c.starts)
    ends = c.starts[order] + c.lengths[order]
    assert (ends[:-1] <= c.starts[order][1:]).all() and ends[-1] <= len(c.ids)
    assert c.lengths.max() <= 30 and c.lengths.min() >= 6


def test_sentences_are_kept_whole_where_they_fit():
    rng = np.random.default_rng(0)
    lengths = [5, 7, 9, 4, 8, 6] * 20
    pieces = _cut(lengths, [i // 6 for i in range(120)], 30, rng)
    assert pieces.sum() == sum(lengths)
    assert set(np.cumsum(pieces)) <= set(np.cumsum(lengths))
    assert _cut([70], [0], 30, rng).tolist() == [30, 30, 10]


def test_batches_depend_on_seed_and_index_alone(corpus):
    c, _ = corpus
    one, two = Sampler(c, CPU, 7), Sampler(c, CPU, 7)
    later = [one.batch(i, 200) for i in range(5)][4]
    assert torch.equal(later, two.batch(4, 200))
    assert not all(torch.equal(one.batch(i, 200), Sampler(c, CPU, 8).batch(i, 200)) for i in range(5))
    for i in range(5):
        ids = one.batch(i, 200)
        assert (ids[:, 0] == c.cls).all() and (ids[:, -1] == c.sep).all() and ids.numel() <= 200


def test_held_out_sequences_are_not_trained_on(corpus):
    c, _ = corpus
    held = {tuple(row.tolist()) for batch in Sampler(c, CPU, 1).held_out(300) for row in batch}
    starts = set(c.starts[-10:].tolist())
    assert sum(len(b) for b in Sampler(c, CPU, 1).held_out(300)) == 10 and held
    assert not starts & set(Sampler(c, CPU, 1).starts.tolist())


def test_no_text_and_too_little_text(tmp_path, teacher_folder):
    with pytest.raises(ValueError, match="text.files"):
        read_corpus([], teacher_folder / "vocab.txt", tmp_path / "c.npz", 32, 10)
    (tmp_path / "t.txt").write_text("The tree grows tall and old.\n")
    with pytest.raises(ValueError, match="held_out"):
        read_corpus([str(tmp_path / "t.txt")], teacher_folder / "vocab.txt", tmp_path / "c.npz", 32, 10)
