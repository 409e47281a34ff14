"""`espalier index` and `espalier search` against NumPy on the package's own vectors."""

import json
import os
import random
import shutil
import subprocess
import time

import numpy as np
import pytest

import espalier
from conftest import ROOT

COMMAND = os.environ.get("ESPALIER_COMMAND")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="ESPALIER_COMMAND names no command to run")

MODEL = ROOT / "models" / "minilm-trees.esp"


def run(*arguments, text=None):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, input=text)


def sentences(count):
    draw = random.Random(8)
    things = "cat tree river engine film letter storm bridge song market".split()
    deeds = "crosses paints forgets follows repairs admires sells hears".split()
    return [f"the {draw.choice(things)} {draw.choice(deeds)} a {draw.choice(things)} {i % 97}" for i in range(count)]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    lines = sentences(1500)
    lines[7] = ""
    (folder / "texts").write_bytes("\r\n".join(lines).encode())
    done = run("index", MODEL, folder / "texts", "-o", folder / "index.npy", "--json", "--threads", "2")
    assert json.loads(done.stdout)["lines"] == 1500, done.stderr
    return folder, lines


def test_rows_are_the_lines_vectors(indexed, model):
    folder, lines = indexed
    index = np.load(folder / "index.npy")
    assert index.shape == (1500, 384) and index.dtype == np.float32
    assert np.abs(index - model.embed(lines)).max() < 1e-5
    assert sorted(p.name for p in folder.iterdir() if "index" in p.name) == ["index.npy", "index.npy.json"]


def test_the_nearest_lines(indexed, model):
    folder, lines = indexed
    index = np.load(folder / "index.npy")
    queries = ["a river and a bridge", "someone sings a song", "engines are repaired"]
    found = run("search", MODEL, folder / "index.npy", folder / "texts", "-k", "5", "--json", *queries)
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    assert [h["query"] for h in hits] == [q for q in queries for _ in range(5)]
    for number, query in enumerate(queries):
        cosines = index @ model.embed(query)
        mine = hits[5 * number : 5 * number + 5]
        assert np.abs(np.array([h["cosine"] for h in mine]) - np.sort(cosines)[::-1][:5]).max() < 1e-4
        for hit in mine:
            assert hit["text"] == lines[hit["line"] - 1] and abs(cosines[hit["line"] - 1] - hit["cosine"]) < 1e-4
    plain = run("search", MODEL, folder / "index.npy", folder / "texts", "-k", "1", text=queries[0] + "\n").stdout
    assert plain == f"{hits[0]['cosine']:.4f}\t{hits[0]['line']}\t{hits[0]['text']}\n"


def test_a_stopped_run_is_gone_on_with(tmp_path, indexed):
    folder, _ = indexed
    lines = sentences(40000)
    (tmp_path / "texts").write_text("\n".join(lines))
    part = tmp_path / "index.npy.part"
    process = subprocess.Popen([COMMAND, "index", MODEL, tmp_path / "texts", "-o", tmp_path / "index.npy"])
    while not part.exists() or part.stat().st_size < 128 + 1024 * 384 * 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "index.npy").exists()
    rows = (part.stat().st_size - 128) // (384 * 4)
    # Half a row, as a machine that lost its power leaves it.
    with part.open("ab") as file:
        file.write(b"1234567")
    first = np.fromfile(part, np.float32, rows * 384, offset=128).copy()
    done = json.loads(run("index", MODEL, tmp_path / "texts", "-o", tmp_path / "index.npy", "--json").stdout)
    assert done["resumed"] == rows and done["lines"] == 40000
    index = np.load(tmp_path / "index.npy")
    np.testing.assert_array_equal(index.ravel()[: first.size], first)
    # Another text: from the start.
    shutil.copy(tmp_path / "index.npy", part)
    shutil.copy(tmp_path / "index.npy.json", tmp_path / "index.npy.part.json")
    (tmp_path / "texts").write_text("\n".join(lines[:100]))
    done = json.loads(run("index", MODEL, tmp_path / "texts", "-o", tmp_path / "index.npy", "--json").stdout)
    assert done["resumed"] == 0 and np.load(tmp_path / "index.npy").shape == (100, 384)


def test_what_does_not_belong_together_is_refused(indexed, tmp_path):
    folder, lines = indexed

    def refused(words, index, texts):
        done = run("search", MODEL, index, texts, "a query")
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr

    other = tmp_path / "texts"
    other.write_text("\n".join(lines[:10]))
    refused("expected [10 lines, 384], found [1500, 384]", folder / "index.npy", other)
    other.write_text("\n".join(reversed(lines)))
    refused("made of another text", folder / "index.npy", other)
    np.save(tmp_path / "wide.npy", np.zeros((1500, 384)))
    refused("other numbers", tmp_path / "wide.npy", folder / "texts")
    (tmp_path / "short.npy").write_bytes((folder / "index.npy").read_bytes()[:-1])
    refused("another length than its shape says", tmp_path / "short.npy", folder / "texts")
    (tmp_path / "none.npy").write_bytes(b"hello")
    refused("another start", tmp_path / "none.npy", folder / "texts")
    # NumPy's own file of the same rows is as good.
    np.save(tmp_path / "own.npy", np.load(folder / "index.npy"))
    assert run("search", MODEL, tmp_path / "own.npy", folder / "texts", "trees", "-k", "2").stdout.count("\n") == 2
