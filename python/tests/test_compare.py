"""`espalier compare` against the same sums taken in NumPy from what the package gives."""

import json
import os
import subprocess
import xml.dom.minidom

import numpy as np
import pytest

import espalier
from conftest import ROOT

COMMAND = os.environ.get("ESPALIER_COMMAND")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="ESPALIER_COMMAND names no command to run")

MODEL = ROOT / "models" / "minilm-trees.esp"
TEXTS = ["a small, quiet, nearly perfect story", "it never comes to life", "trees grow", "no", "a cat sat on the mat ."]


def compare(*arguments):
    return subprocess.run([COMMAND, "compare", *arguments], capture_output=True, text=True)


def test_two_precisions(tmp_path):
    texts = tmp_path / "texts"
    texts.write_text("\n".join(TEXTS) + "\n")
    plot = tmp_path / "plot.svg"
    options = ["--precision", "f32", "--other-precision", "int8", "--json", "--plot", plot]
    found = json.loads(compare(MODEL, MODEL, texts, *options).stdout)
    a, b = (espalier.Context(espalier.Model(MODEL, precision=p)) for p in ("f32", "int8"))
    difference = size = equal = walks = 0
    for text in TEXTS:
        tokens = a.tokenize(text)
        x, y = (c.encode(tokens.ids, types=tokens.types).astype(np.float64) for c in (a, b))
        difference, size = difference + ((x - y) ** 2).sum(), size + (x**2).sum()
        leaves = [np.concatenate([r.leaf for r in c.routes()]) for c in (a, b)]
        equal, walks = equal + (leaves[0] == leaves[1]).sum(), walks + leaves[0].size
    assert (found["texts"], found["tokens"] * 6) == (len(TEXTS), walks)
    assert found["hidden_relative_error"] == pytest.approx((difference / size) ** 0.5, rel=1e-5)
    assert found["layers"][-1]["relative_error"] == pytest.approx(found["hidden_relative_error"])
    assert found["layers"][0]["relative_error"] < 1e-6 < found["layers"][1]["relative_error"]
    assert np.mean([f["equal_leaves"] for f in found["forests"]]) == pytest.approx(equal / walks)
    vectors = [c.embed(TEXTS) for c in (a, b)]
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    assert found["cosine"]["mean"] == pytest.approx(cosines.mean(), abs=1e-4)
    assert found["cosine"]["least"] == pytest.approx(cosines.min(), abs=1e-4)
    for head in found["heads"]:
        labels = [[c.label for c in context.classify(TEXTS, head=head["name"])] for context in (a, b)]
        assert head["agreement"] == np.mean([p == q for p, q in zip(*labels)])
    bars = xml.dom.minidom.parse(str(plot)).getElementsByTagName("rect")
    assert len(bars) == 1 + 8 + 6


def test_a_model_is_equal_to_itself(tmp_path):
    texts = tmp_path / "texts"
    texts.write_text("a tree\tits leaves\n\na forest\n")
    found = json.loads(compare(MODEL, MODEL, texts, "--json", "--lines", "5").stdout)
    assert found["texts"] == 2 and found["hidden_relative_error"] == 0 and found["cosine"]["least"] == pytest.approx(1)
    assert all(f["equal_leaves"] == 1 for f in found["forests"])
    assert all(h["agreement"] == 1 for h in found["heads"])


def test_what_cannot_be_compared(tmp_path):
    texts = tmp_path / "texts"
    texts.write_text("\n")
    done = compare(MODEL, MODEL, texts)
    assert done.returncode == 1 and "expected lines of text, found none" in done.stderr
    done = compare(MODEL, tmp_path / "none.esp", texts)
    assert done.returncode == 1 and "cannot open" in done.stderr
