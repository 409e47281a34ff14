"""Fused encoders: exact where they should be, distilled back, and the same as `espalier fuse` makes of a model file."""
import json
import subprocess

import numpy as np
import pytest
import torch

from conftest import HIDDEN, sentences
from espalier_training import distil, evaluate, export, fuse, grow
from espalier_training.__main__ import main
from espalier_training.checkpoint import load_teacher, load_trees, save_trees
from espalier_training.config import load_run
from espalier_training.encoder import Encoder, Shape, pool
from espalier_training.parts import make_part, parse_parts
from espalier_training.text import tokenizer

PARTS = ["dense:8+leaf:1:2:8", "leaf:2:2:4", "neuron:2:2", "none", "teacher"]


@pytest.mark.parametrize("texts", [["dense:5", "dense:9"], ["leaf:1:2:3", "leaf:2:2:3"], ["neuron:1:2", "neuron:3:2"],
                                   ["leaf:1:0:0", "leaf:1:0:0"]])
def test_a_merged_part_is_the_sum(texts):
    parts = [make_part(HIDDEN, *parse_parts(t)) for t in texts]
    for part in parts:
        for tensor in part.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    ((spec, members),) = fuse.merged_specs([[p.spec] for p in parts])
    assert members == [(0, 0), (1, 0)]
    x = torch.randn(50, HIDDEN)
    torch.testing.assert_close(fuse.merge(parts, HIDDEN, spec)(x), parts[0](x) + parts[1](x), rtol=1e-5, atol=1e-5)


def test_parts_that_differ_stand_beside_each_other():
    layers = [parse_parts("dense:4+leaf:1:2:3"), parse_parts("leaf:1:3:3+dense:5"), parse_parts("leaf:2:2:3")]
    assert [(s.config(), m) for s, m in fuse.merged_specs(layers)] == [
        ({"kind": "dense", "width": 9}, [(0, 0), (1, 1)]),
        ({"kind": "leaf_forest", "trees": 3, "depth": 2, "leaf_width": 3}, [(0, 1), (2, 0)]),
        ({"kind": "leaf_forest", "trees": 1, "depth": 3, "leaf_width": 3}, [(1, 0)])]


def test_runs():
    attention = [True, False, True, False, False, False, True]
    assert fuse.runs_of(attention, "pairs") == [(0, 1), (2, 5), (6, 6)]
    assert fuse.runs_of(attention, "auto") == [(0, 0), (1, 1), (2, 2), (3, 4), (5, 5), (6, 6)]
    assert fuse.runs_of(attention, "none") == [(i, i) for i in range(7)]
    assert fuse.runs_of([False, False, True], "auto") == [(0, 0), (1, 1), (2, 2)]


def random_encoder(parts: list[str], attention: list[bool]) -> Encoder:
    model = Encoder(Shape(HIDDEN, len(parts), 4, 64, 2, 40, 1e-12), [parse_parts(p) for p in parts], attention)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.randn_like(tensor) * (0.1 if name.endswith("bias") else HIDDEN ** -0.5))
    return model


@torch.no_grad()
def test_a_fused_encoder_is_its_definition():
    model = random_encoder(["dense:6+leaf:1:2:3"] * 4, [True] * 4)
    fused = fuse.fuse(model, [1, 2], "pairs")
    assert fused.attention == [True, True] and fused.ends == [3, 4]
    ids = torch.randint(0, 40, (3, 9))
    layers = model.encoder.layer
    x = layers[0].attended(model.embeddings(ids, None, torch.float32), None)
    first = layers[2].output.LayerNorm(x + sum(layer.feed_forward(x) for layer in layers[:3]))
    states = fused(ids)
    torch.testing.assert_close(states[1], first, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states[2], layers[3](first, None), rtol=1e-5, atol=1e-5)
    whole = model(ids)
    assert [s is t for s, t in zip(fused.counterparts(whole), (whole[0], whole[3], whole[4]))] == [True] * 3


@pytest.mark.parametrize("parts", PARTS)
def test_a_fused_run_is_distilled_back(run_file, parts):
    path = run_file(parts, fuse={"drop_attention": [1]}, distil={"tokens": 4096})
    run = load_run(path)
    if parts != "teacher":
        grow.run(run)
    fuse.run(run)
    before = distil.Distillation(run).evaluate()
    distil.run(run)
    evaluate.run(run)
    after = json.loads((run.path / "evaluate.json").read_text())
    assert len(after["hidden_error"]) == 1
    assert after["hidden_error"][0] < before["hidden_error"][0]
    config = json.loads((run.path / "distilled" / "config.json").read_text())
    assert config["attention"] == [True] and config["ends"] == [2]


def test_a_fused_checkpoint_comes_back(tmp_path):
    fused = fuse.fuse(random_encoder(["leaf:1:2:3"] * 3, [True] * 3), [1, 2], "auto")
    assert fused.attention == [True, False, False]
    save_trees(tmp_path / "fused", fused)
    again = load_trees(tmp_path / "fused")
    assert (again.attention, again.ends, again.parts) == (fused.attention, fused.ends, fused.parts)
    for name, value in fused.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-3, msg=name)
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    (tmp_path / "fused" / "config.json").write_text(json.dumps({**config, "ends": [1]}))
    with pytest.raises(ValueError, match="ends"):
        load_trees(tmp_path / "fused")


@pytest.mark.parametrize("parts", PARTS)
def test_the_command_fuses_the_same(run_file, command, parts):
    """fuse, then export, against export, then `espalier fuse`."""
    run = load_run(run_file(parts, fuse={"drop_attention": [1]}))
    if parts != "teacher":
        grow.run(run)
    fuse.run(run)
    run.export.command, run.export.precision, run.export.checkpoint = command, "f32", "fused"
    export.run(run)
    ours = run.path / "run.esp"
    whole, theirs = run.path / "whole.esp", run.path / "theirs.esp"
    source = run.teacher if parts == "teacher" else str(run.path / "grown")
    subprocess.run([command, "convert", source, "--base", run.teacher, "-o", str(whole)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([command, "fuse", str(whole), "-o", str(theirs), "--drop-attention", "1-1", "--pairs", "--seconds", "0.01"],
                   check=True, stdout=subprocess.DEVNULL)
    texts = sentences(12)
    vectors = [np.array([json.loads(line) for line in subprocess.run(
        [command, "embed", str(f), *texts], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()]) for f in (ours, theirs)]
    # Checkpoints are float16; a walk near its threshold may go elsewhere.
    assert np.median(np.abs(vectors[0] - vectors[1]).max(1)) < 2e-3
    fused = load_trees(run.path / "fused", run.teacher)
    tok = tokenizer(f"{run.teacher}/vocab.txt")
    ids = [tok.encode(t).ids for t in texts]
    with torch.no_grad():
        pooled = np.stack([pool(fused(torch.tensor([i]))[-1])[0].numpy() for i in ids])
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    assert np.median(np.abs(vectors[0] - pooled).max(1)) < 1e-4


def test_what_cannot_be_fused_is_one_line(run_file, capsys):
    path = run_file("leaf:1:2:3")
    assert main(["grow", path]) == 0
    for override, words in (("fuse.drop_attention=[]", "found none"), ("fuse.drop_attention=[7]", "0 to 1"),
                            ("fuse.runs=some", "fuse.runs")):
        assert main(["fuse", path, *{override, "fuse.drop_attention=[1]" if "runs" in override else override}]) == 1
        assert words in capsys.readouterr().err


def test_the_teacher_is_no_longer_the_teacher(run_file):
    run = load_run(run_file("teacher", fuse={"drop_attention": [1], "runs": "none"}))
    assert not run.is_teacher
    fuse.run(run)
    fused, teacher = load_trees(run.path / "fused", run.teacher), load_teacher(run.teacher)
    assert fused.attention == [True, False] and fused.parts == teacher.parts
