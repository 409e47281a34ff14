"""Texts and ids in, against the command where there is one, and against each other."""

import concurrent.futures
import json
import os
import subprocess
import threading
import time

import numpy as np
import pytest

import espalier
from conftest import ROOT

MODEL = ROOT / "models" / "minilm-trees.esp"
LINES = ["a small, quiet, nearly perfect story", "it never comes to life", "", "Ünïcode, 漢字 and a cat", "the end " * 400]


def test_three_lines(model_file):
    model = espalier.Model(model_file)
    vector = model.embed("a sentence")
    assert vector.shape == (384,) and vector.dtype == np.float32 and abs(np.linalg.norm(vector) - 1) < 1e-5


def test_what_a_model_says_of_itself(model):
    assert (model.hidden, model.blocks, model.forests, model.precision) == (384, 6, 6, "int8")
    assert model.heads == {"sst2": ["negative", "positive"], "mrpc": ["not_equivalent", "equivalent"]}
    assert model.isa in ("scalar", "avx2", "avx512", "neon") and model.active_neurons < model.stored_neurons
    other = espalier.Model(str(MODEL), isa="scalar", precision="f32", mmap=False, verify=True)
    assert (other.isa, other.precision) == ("scalar", "f32")


def test_many_texts_are_the_same_as_one_at_a_time(model):
    together = model.embed(LINES * 60, threads=2)
    assert together.shape == (300, 384)
    for i, line in enumerate(LINES):
        alone = model.embed(line)
        for copy in range(60):
            assert np.abs(together[i + copy * len(LINES)] - alone).max() < 1e-5
    assert model.embed([]).shape == (0, 384)


def test_classification(model):
    one = model.classify(LINES[0], head="sst2")
    assert one.name == "positive" and one.label == 1 and not one.truncated
    assert abs(one.probability - np.exp(one.logits[1]) / np.exp(one.logits).sum()) < 1e-6
    pair = model.classify("the tree is tall", "a tall tree", head="mrpc")
    assert pair.name == "equivalent"
    all_of_them = model.classify(LINES, head="sst2")
    assert [c.truncated for c in all_of_them] == [False] * 4 + [True]
    pairs = model.classify(["the tree is tall"] * 2, ["a tall tree", "prices fell"], head="mrpc")
    assert np.abs(pairs[0].logits - pair.logits).max() < 1e-4 and pairs[1].name == "not_equivalent"


@pytest.mark.skipif("ESPALIER_COMMAND" not in os.environ, reason="ESPALIER_COMMAND names no command to compare with")
def test_the_command_says_the_same(model):
    def run(name, *options):
        texts = [line for line in LINES if line]
        command = [os.environ["ESPALIER_COMMAND"], name, MODEL, *options, *texts]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        return texts, [json.loads(line) for line in lines]

    texts, vectors = run("embed")
    assert np.abs(np.array(vectors, dtype=np.float32) - model.embed(texts)).max() < 1e-5
    texts, answers = run("classify", "--json", "--head", "sst2")
    for answer, ours in zip(answers, model.classify(texts, head="sst2")):
        assert answer["label"] == ours.name and np.abs(np.array(answer["logits"]) - ours.logits).max() < 1e-4


def test_ids_in_hidden_states_out(model):
    context = espalier.Context(model, max_tokens=64)
    tokens = context.tokenize("a tree", "a leaf")
    assert tokens.ids.dtype == np.int32 and list(tokens.types) == [0] * 4 + [1] * 3 and not tokens.truncated
    hidden = context.encode(tokens.ids, types=tokens.types)
    assert hidden.shape == (7, 384)
    out = np.full((7, 384), np.nan, np.float32)
    assert context.encode(tokens.ids, types=tokens.types, out=out) is not None
    np.testing.assert_array_equal(out, hidden)
    # Two sequences, packed.
    ids = np.concatenate([tokens.ids, tokens.ids[:5]])
    packed = context.encode(ids, np.array([0, 7, 12], np.uint32), np.concatenate([tokens.types, tokens.types[:5]]))
    assert np.abs(packed[:7] - hidden).max() < 1e-4
    # The pooled vector is their mean, of length 1.
    mean = hidden.mean(axis=0)
    pooled = context.embed_ids(tokens.ids, types=tokens.types)[0]
    assert np.abs(pooled - mean / np.linalg.norm(mean)).max() < 1e-5
    assert context.score_ids(tokens.ids, types=tokens.types, head="mrpc").shape == (1, 2)


def test_ids_are_read_where_they_lie(model):
    context = espalier.Context(model)
    ids = np.arange(1000, 1010, dtype=np.int32)
    ids.flags.writeable = False
    assert context.encode(ids).shape == (10, 384)
    with pytest.raises(TypeError):
        context.encode([1000, 1001])


def test_routes(model):
    context = espalier.Context(model)
    context.embed("a tree of trees")
    routes = context.routes()
    assert [r.block for r in routes] == list(range(6))
    for r in routes:
        assert r.leaf.shape == r.margin.shape == (6, 1) and r.leaves == 64
        assert (r.leaf < 64).all() and (r.margin >= 0).all()


def test_errors_are_exceptions_with_the_library_s_message(model, tmp_path):
    def refused(status, words, call):
        with pytest.raises(espalier.Error) as caught:
            call()
        assert caught.value.status == status and words in str(caught.value)

    refused("io", "cannot open", lambda: espalier.Model(tmp_path / "none.esp"))
    broken = tmp_path / "broken.esp"
    broken.write_bytes(MODEL.read_bytes()[:1000])
    refused("bad_model", str(broken), lambda: espalier.Model(broken))
    refused("invalid_argument", "expected scalar, avx2", lambda: espalier.Model(MODEL, isa="sse9"))
    refused("invalid_argument", "name one of sst2, mrpc", lambda: model.classify("x"))
    refused("invalid_argument", "found nli", lambda: model.classify("x", head="nli"))
    refused("invalid_argument", "expected 2 texts, found 1", lambda: model.classify(["x", "y"], ["z"], head="mrpc"))
    context = espalier.Context(model, max_tokens=8)
    refused("invalid_argument", "expected an id", lambda: context.encode(np.array([-1], np.int32)))
    refused("too_long", "", lambda: context.encode(np.zeros(9, np.int32)))
    refused("invalid_argument", "offsets", lambda: context.encode(np.zeros(4, np.int32), np.array([0, 9], np.uint32)))
    refused("invalid_argument", "out: expected [4, 384]",
            lambda: context.encode(np.zeros(4, np.int32), out=np.zeros((3, 384), np.float32)))
    refused("unsupported", "", lambda: context.generate("x"))
    with pytest.raises(TypeError):
        model.embed(7)
    with pytest.raises(UnicodeEncodeError):
        model.embed("\ud800")


def test_other_threads_run_meanwhile(model):
    """The interpreter is free during a call: a thread that only counts goes on counting."""
    counted, stop = 0, threading.Event()

    def count():
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0.001)

    context = espalier.Context(model, max_tokens=512)
    ids = np.arange(1000, 1512, dtype=np.int32)
    context.encode(ids)
    thread = threading.Thread(target=count)
    thread.start()
    before, start = counted, time.perf_counter()
    for _ in range(5):
        context.encode(ids)
    during = counted - before
    seconds = time.perf_counter() - start
    stop.set()
    thread.join()
    assert during > 0.2 * seconds / 0.0012


def test_a_model_serves_many_threads_and_a_context_one(model):
    expected = model.embed(LINES)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: model.embed(LINES), range(32)):
            np.testing.assert_array_equal(vectors, expected)
    context = espalier.Context(model, max_tokens=512)
    ids = np.arange(1000, 1512, dtype=np.int32)
    refused = 0

    def use(_):
        nonlocal refused
        try:
            context.encode(ids)
        except espalier.Error as error:
            assert "in use by another call" in str(error)
            refused += 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(40)))
    assert 0 < refused < 40
    assert context.encode(ids).shape == (512, 384)


def test_cancel(model):
    context = espalier.Context(model, max_tokens=512)
    texts = ["a long and winding sentence about trees"] * 20000
    timer = threading.Timer(0.3, context.cancel)
    timer.start()
    with pytest.raises(espalier.Error) as caught:
        context.embed(texts)
    assert caught.value.status == "cancelled"
    assert context.embed("a tree").shape == (384,)
