import io

import numpy as np
import pytest

from espalier_training.progress import Progress


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_plain_lines_come_at_the_interval_and_at_the_end(clock):
    stream = Stream(False)
    with Progress(1000, "train", interval=10, stream=stream, clock=clock) as progress:
        for _ in range(50):
            clock.now += 0.5
            progress.advance(20, loss=2.34567, step=1234)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "train: 400/1,000 (40%), 40/s, 15 s left, loss 2.346, step 1,234",
        "train: 800/1,000 (80%), 40/s, 5 s left, loss 2.346, step 1,234",
        "train: 1,000/1,000 (100%), 40/s, 25 s, loss 2.346, step 1,234",
    ]


def test_a_terminal_gets_one_line_drawn_five_times_a_second(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Stream(True)
    with Progress(1000, "read", stream=stream, clock=clock) as progress:
        for _ in range(1000):
            clock.now += 0.002
            progress.advance(1)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    drawn = text.rstrip("\n").split("\r")[1:]
    assert 10 <= len(drawn) <= 12  # 2 s, the first and the last
    assert all(len(line) == 59 for line in drawn)
    assert drawn[-1].startswith(f"read: [{'#' * 20}] 1,000/1,000 (100%), 500/s, 2 s")


def test_the_last_state_is_shown_when_the_work_fails(clock):
    stream = Stream(False)
    with pytest.raises(KeyError):
        with Progress(10, "train", stream=stream, clock=clock) as progress:
            clock.now += 2
            progress.advance(4)
            raise KeyError
    assert stream.getvalue() == "train: 4/10 (40%), 2/s, 2 s\n"


def test_what_an_earlier_run_has_done_is_not_in_the_rate(clock):
    stream = Stream(False)
    with Progress(100, "train", done=60, stream=stream, clock=clock) as progress:
        clock.now += 40
        progress.advance(20)
    assert stream.getvalue().splitlines()[0] == "train: 80/100 (80%), 0.5/s, 40 s left"


def test_long_times_numpy_figures_and_text(clock):
    stream = Stream(False)
    progress = Progress(10, "train", stream=stream, clock=clock)
    clock.now += 3600
    progress.advance(loss=np.float32(0.5), phase="grow")
    clock.now += 125
    progress.advance(8)
    progress.close()
    progress.close()
    assert stream.getvalue().splitlines() == [
        "train: 1/10 (10%), 0.000278/s, 9 h 00 min left, loss 0.5, phase grow",
        "train: 9/10 (90%), 0.00242/s, 6 min 54 s left, loss 0.5, phase grow",
        "train: 9/10 (90%), 0.00242/s, 1 h 02 min, loss 0.5, phase grow",
    ]


def test_nothing_to_do_and_more_than_expected(clock):
    stream = Stream(True)
    Progress(0, "none", stream=stream, clock=clock).close()
    with Progress(2, "more", stream=stream, clock=clock) as progress:
        progress.advance(3)
    assert "3/2 (100%)" in stream.getvalue()
