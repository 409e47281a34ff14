"""Whole runs at toy size: they learn, resume where they were, say what is wrong, and agree with the C++ runtime."""
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import ROOT, sentences
from espalier_training import agree, distil, evaluate, export, finetune, grow, joint
from espalier_training.__main__ import main
from espalier_training.checkpoint import load_trees, save_trees
from espalier_training.config import load_run
from espalier_training.encoder import pool
from espalier_training.study import load_study
from espalier_training.text import tokenizer

PARTS = ["dense:8+leaf:1:2:8", "leaf:2:2:4", "neuron:2:2", "none"]


def grown(path):
    run = load_run(path)
    grow.run(run)
    return run


@pytest.mark.parametrize("parts", PARTS)
def test_distillation_brings_the_student_closer(run_file, parts):
    run = grown(run_file(parts))
    distil.run(run)
    result = json.loads((run.path / "distil.json").read_text())
    losses = [h["loss"] for h in result["history"] if "loss" in h]
    assert len(losses) == 1 or losses[-1] < losses[0]
    distillation = distil.Distillation(run)  # afresh, from the grown model
    before = distillation.evaluate()
    assert result["cosine"] > before["cosine"] - 1e-3
    assert sum(result["hidden_error"]) < sum(before["hidden_error"])
    assert (run.path / "loss.png").exists()


def test_a_run_that_was_stopped_ends_where_an_unbroken_one_ends(run_file):
    whole = grown(run_file("leaf:1:2:8", "whole"))
    distil.run(whole)
    stopped = grown(run_file("leaf:1:2:8", "stopped"))
    first = distil.Distillation(stopped)
    for _ in range(7):
        first.train_step()
    first.save()
    distil.run(stopped)
    a, b = (load_trees(r.path / "distilled", r.teacher).state_dict() for r in (whole, stopped))
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_two_processes_learn_what_one_learns(run_file):
    files = [run_file("leaf:1:2:8", name, distil={"tokens": 2048}) for name in ("one", "two")]
    one, two = (grown(f) for f in files)
    distil.run(one)
    # What torchrun sets: Debian's PyTorch 1.13 has one that Python 3.11 breaks.
    shared = {**os.environ, "PYTHONPATH": str(ROOT / "training"), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    processes = [subprocess.Popen([sys.executable, "-m", "espalier_training", "distil", files[1]],
                                  env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(2)]
    assert [p.wait(timeout=300) for p in processes] == [0, 0]
    a, b = (load_trees(r.path / "distilled", r.teacher).state_dict() for r in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=4e-3, msg=name)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_nodes_of_leaf_trees_and_tables_stay(run_file):
    run = grown(run_file("leaf:1:2:8"))
    before = load_trees(run.path / "grown", run.teacher).state_dict()
    distil.run(run)
    after = load_trees(run.path / "distilled", run.teacher).state_dict()
    for name in before:
        if ".node." in name or "embeddings.weight" in name:
            assert torch.equal(before[name], after[name]), name
        elif name.endswith("weight"):  # a key's bias changes no softmax, so it may stay
            assert not torch.equal(before[name], after[name]), name


def test_masked_loss_and_learned_tables(run_file):
    run = grown(run_file("leaf:1:2:8", distil={"masked": 0.1, "train_embeddings": True, "tokens": 2048}))
    distil.run(run)
    assert "embeddings.word_embeddings.weight" in _tensor_names(run.path / "distilled")
    assert "embeddings.word_embeddings.weight" not in _tensor_names(run.path / "grown")


def _tensor_names(folder):
    from safetensors.numpy import load_file
    return set(load_file(folder / "model.safetensors"))


def test_other_options_do_not_resume(run_file):
    run = grown(run_file("leaf:1:2:8"))
    first = distil.Distillation(run)
    first.train_step()
    first.save()
    run.distil.learning_rate = 1e-4
    with pytest.raises(ValueError, match="other options"):
        distil.run(run)


def fine_tuned(run_file):
    teacher = load_run(run_file("teacher", "teacher", finetune={"keep": ["all"]}))
    finetune.run([teacher])
    run = load_run(run_file("dense:8+leaf:1:2:8", finetune={"keep": ["all"], "teacher_runs": str(teacher.path)}))
    grow.run(run)
    distil.run(run)
    return run


def test_from_teacher_to_the_same_answers_in_the_runtime(run_file, command, tmp_path, capsys):
    run = fine_tuned(run_file)
    finetune.run([run])
    joint.run(run)
    exported_and_compared(run, command, "tasks/mrpc-1", tmp_path / "task.esp", capsys)
    exported_and_compared(run, command, "joint", tmp_path / "joint.esp", capsys)


def test_joint_goes_on_from_its_own_heads(run_file):
    run = fine_tuned(run_file)
    joint.run(run)
    before = load_trees(run.path / "joint", run.teacher).heads["mrpc"].out.weight
    run.joint.start, run.joint.output, run.joint.learning_rate = "joint", "second", 1e-9
    run.joint.soft = run.joint.hidden = 0.0
    run.finetune.teacher_runs = ""
    joint.run(run)
    after = load_trees(run.path / "second", run.teacher).heads["mrpc"].out.weight
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


def test_joint_borrows_texts_of_other_tasks(run_file):
    run = fine_tuned(run_file)
    run.joint.borrowed = {"mrpc": ["stsb"]}
    (lesson,) = joint._lessons(run, torch.device("cpu"), torch.float32)
    labelled = ~np.isnan(lesson.rows.labels)
    assert labelled.sum() == 24 and (~labelled).sum() == 24 and len(lesson.wanted) == 48
    for drawn in lesson.batches:
        assert labelled[drawn].sum() == 8 and (~labelled[drawn]).sum() == 8
    joint.run(run)
    assert np.isfinite(json.loads((run.path / "joint.json").read_text())["mrpc"]["accuracy"])


@pytest.mark.parametrize("lender, soft", [("sst2", 0.5), ("mrpc", 0.5), ("nothing", 0.5), ("stsb", 0.0)])
def test_what_joint_cannot_borrow(run_file, lender, soft):
    run = fine_tuned(run_file)
    run.joint.borrowed, run.joint.soft = {"mrpc": [lender]}, soft
    with pytest.raises(ValueError, match="joint.borrowed.mrpc: expected"):
        joint.run(run)


def exported_and_compared(run, command, checkpoint, target, capsys):
    run.export.command, run.export.checkpoint, run.export.output, run.export.precision = command, checkpoint, str(target), "f32"
    export.run(run)
    agree.run(run)
    told = capsys.readouterr().out
    assert "24 texts" in told and "leaves the same" in told


def test_the_teacher_is_exported_and_timed_as_it_is(run_file, command):
    run = load_run(run_file("teacher"))
    run.export.command = command
    export.run(run)
    assert json.loads((run.path / "bench.json").read_text())["median_ms"] > 0


def test_another_model_does_not_agree(run_file, command, tmp_path):
    run = fine_tuned(run_file)
    finetune.run([run])
    run.export.command, run.export.checkpoint, run.export.precision = command, "tasks/mrpc-1", "f32"
    export.run(run)
    model = load_trees(run.path / "tasks/mrpc-1", run.teacher)
    with torch.no_grad():
        model.encoder.layer[0].ffn[1].node.threshold += 0.05
    save_trees(run.path / "tasks/mrpc-1", model, f"{run.teacher}/vocab.txt")
    with pytest.raises(ValueError, match="mrpc: PyTorch and the runtime differ"):
        agree.run(run)


def test_evaluate_and_table(run_file, capsys):
    run = grown(run_file("leaf:1:2:8", finetune={"data": ""}))
    distil.run(run)
    evaluate.run(run)
    assert "cosine to the teacher" in capsys.readouterr().out
    assert main(["table", run_file("leaf:1:2:8", finetune={"data": ""})]) == 0
    assert "| run | leaf:1:2:8 |" in capsys.readouterr().out


def test_a_study_makes_one_table_and_goes_on_where_it_was(run_file, tmp_path, capsys, command):
    lines = open(run_file("none")).read().splitlines()
    kept = [l for l in lines if not l.startswith(("name", "parts", "folder", "cache"))]
    study = tmp_path / "study.toml"
    study.write_text("\n".join([f'folder = "{tmp_path / "study"}"', *kept, "[export]", f'command = "{command}"',
                                '[[run]]\nname = "trees"\nparts = "leaf:1:2:8"', '[[run]]\nname = "none"\nparts = "none"']) + "\n")
    assert main(["study", str(study)]) == 0
    table = (tmp_path / "study" / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["teacher", "trees", "none"]
    assert "-" not in [cell.strip() for line in table.splitlines()[2:] for cell in line.split("|")[9:10]]
    assert "ms, 128 tokens" in table and all(float(line.split("|")[-2]) > 0 for line in table.splitlines()[2:])
    made = (tmp_path / "study" / "trees" / "distil.json").stat().st_mtime_ns
    (tmp_path / "study" / "none" / "evaluate.json").unlink()
    assert main(["study", str(study)]) == 0
    assert (tmp_path / "study" / "trees" / "distil.json").stat().st_mtime_ns == made
    assert (tmp_path / "study" / "none" / "evaluate.json").exists()


@pytest.mark.parametrize("change, message", [
    ("distil.tokns=1", "distil.tokns: unknown"), ("distil.tokens=many", "expected int"), ("grow.split=left", "crosscov"),
    ("seed=true", "expected int"), ("text=1", "expected a section"), ("parts=leaf:1", "parts"),
    ("teacher=nowhere", "config.json"), ("finetune.tasks=[\"imdb\"]", None)])
def test_mistakes_are_one_line(run_file, capsys, change, message):
    assert main(["grow", run_file("none"), change]) == (1 if message else 0)
    if message:
        err = capsys.readouterr().err.strip()
        assert message in err and err.splitlines()[-1].startswith("error: ")


def test_usage(capsys):
    assert main(["grow"]) == 2 and main(["plant", "x"]) == 2 and main(["--help"]) == 0
    assert "usage" in capsys.readouterr().err


def test_a_checkpoint_comes_back(run_file, tmp_path):
    run = grown(run_file("dense:8+leaf:1:2:8"))
    model = load_trees(run.path / "grown", run.teacher)
    model.add_head("sst2", ("negative", "positive"))
    save_trees(tmp_path / "saved", model)
    again = load_trees(tmp_path / "saved", run.teacher)
    for name, value in model.state_dict().items():
        exact = value if ".node." in name or "embeddings.weight" in name else value.half().float()
        assert torch.equal(again.state_dict()[name], exact), name
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["ffn"][0][1]["depth"] = 3
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="node.weight: expected .* found"):
        load_trees(tmp_path / "saved", run.teacher)


def test_studies_that_make_no_sense(tmp_path, run_file):
    (tmp_path / "s.toml").write_text('teacher = "x"\n')
    with pytest.raises(ValueError, match=r"\[\[run\]\]"):
        load_study(str(tmp_path / "s.toml"), [])
    (tmp_path / "s.toml").write_text('teacher = "x"\n[[run]]\nname="a"\nparts="none"\n[[run]]\nname="a"\nparts="none"\n')
    with pytest.raises(ValueError, match="names that differ"):
        load_study(str(tmp_path / "s.toml"), [])
    (tmp_path / "s.toml").write_text('teacher = "x"\n' + "".join(f'[[run]]\nname="{n}"\nparts="none"\n' for n in "abc"))
    assert [r.name for r in load_study(str(tmp_path / "s.toml"), ['only=["c", "a"]'])[0]] == ["teacher", "a", "c"]
    with pytest.raises(ValueError, match="only: expected some of a, b, c, found d"):
        load_study(str(tmp_path / "s.toml"), ['only=["d"]'])
