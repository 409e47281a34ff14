"""embed.py with a worker that is killed, and with the whole job killed and started again: every row once."""

import pathlib

import numpy as np
import pyarrow.parquet as parquet
import pytest

import espalier
from measure import MODEL, Job, read_ids, write_texts

ROWS = 12000


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("ray") / "texts"
    write_texts(folder, [f"sentence {i} of a table, and the story is {'good' if i % 3 else 'bad'}" for i in range(997)], ROWS)
    return folder


def check(texts: pathlib.Path, output: pathlib.Path) -> None:
    assert sorted(read_ids(output)) == list(range(ROWS))
    written, read = parquet.read_table(output), parquet.read_table(texts)
    assert written.column_names == ["id", "embedding"]
    by_id = dict(zip(written["id"].to_pylist(), written["embedding"]))
    model = espalier.Model(MODEL)
    for row in range(0, ROWS, 1501):
        expected = model.embed(read["text"][row].as_py())
        assert np.abs(np.array(by_id[row].as_py(), np.float32) - expected).max() < 1e-5


def test_a_killed_worker(texts, tmp_path):
    output = tmp_path / "vectors"
    job = Job(MODEL, texts, output, "--workers", 2, "--rows", 500)
    job.wait_for_rows(output, ROWS // 3)
    assert len(job.workers()) == 2
    job.kill_worker()
    job.wait()
    check(texts, output)


def test_a_killed_job_goes_on(texts, tmp_path):
    output = tmp_path / "vectors"
    job = Job(MODEL, texts, output, "--workers", 2, "--rows", 500)
    job.wait_for_rows(output, ROWS // 3)
    job.kill()
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    left = ROWS - len(read_ids(output))
    assert 0 < left
    for _ in range(2):  # goes on; and once more, when there is nothing left to do
        Job(MODEL, texts, output, "--workers", 2, "--rows", 500).wait()
        check(texts, output)
    kept = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    assert sum(kept.get(name) == time for name, time in before.items()) >= len(before) - 2
