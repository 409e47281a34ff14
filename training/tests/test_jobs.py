"""Jobs: each once, those that others wait for first, failures told and not contagious."""
import threading

import pytest

from espalier_training.jobs import Job, work


def job(folder, name, log, needs=(), fail=False):
    def act():
        log.append(name)
        if fail:
            raise ValueError("broken")
        (folder / name).write_text("")
    return Job(name, folder / name, act, [folder / n for n in needs])


def test_needs_come_first_and_what_is_done_is_not_done_again(tmp_path):
    log = []
    (tmp_path / "old").write_text("")
    work([job(tmp_path, "late", log, ["early"]), job(tmp_path, "old", log), job(tmp_path, "early", log)])
    assert log == ["early", "late"]


def test_a_failure_is_told_and_only_stops_what_needs_it(tmp_path, capsys):
    log = []
    with pytest.raises(ValueError, match="1 jobs failed"):
        work([job(tmp_path, "bad", log, fail=True), job(tmp_path, "after", log, ["bad"]), job(tmp_path, "other", log)])
    assert log == ["bad", "other"]
    assert "bad: broken" in capsys.readouterr().err


def test_many_workers_do_each_job_once(tmp_path):
    log = []
    jobs = [job(tmp_path, f"j{i}", log, [f"j{i - 1}"] if i % 5 else []) for i in range(20)]
    threads = [threading.Thread(target=work, args=(jobs,)) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(log) == sorted(j.name for j in jobs)


def test_a_lane_keeps_its_jobs_and_waits_for_those_of_other_lanes(tmp_path, monkeypatch):
    log = []
    jobs = [job(tmp_path, f"heavy{i}", log) for i in range(4)] + [job(tmp_path, "after", log, ["heavy1"])]
    for lane, heavy in enumerate(jobs[:4]):
        heavy.lane = lane
    jobs[4].needs.append(tmp_path / "heavy2")
    monkeypatch.setenv("ESPALIER_TRAINING_WORKER", "1/2")
    other = threading.Timer(0.5, lambda: [jobs[i].work() for i in (0, 2)])  # lane 0, elsewhere
    other.start()
    work(jobs)
    other.join()
    assert log == ["heavy1", "heavy3", "heavy0", "heavy2", "after"]
