"""How far a long job is: a bar on a terminal, now and then a line elsewhere."""
from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

_REDRAW_SECONDS = 0.2


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _figure(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    try:
        return f"{float(value):.4g}"  # type: ignore[arg-type]  # numpy's and PyTorch's scalars as well
    except (TypeError, ValueError):
        return str(value)


class Progress:
    """Counts to `total`; a context manager, so that the last state is always shown.

    interval: seconds between two plain lines where `stream` (stderr) is no terminal.
    done: what an earlier run has done; it is not counted in the rate.
    """

    def __init__(
        self,
        total: int,
        title: str,
        interval: float = 30.0,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.title, self.done = total, title, done
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._every = _REDRAW_SECONDS if self._terminal else interval
        self._clock = clock
        self._from = done
        self._started = clock()
        # A bar is there at once; a job shorter than the interval gets its closing line only.
        self._shown = self._started if not self._terminal else -float("inf")
        self._figures: dict[str, object] = {}
        self._closed = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, n: int = 1, **figures: object) -> None:
        """n more are done; figures (loss=...) stand after the rate until others of the same name come."""
        self.done += n
        self._figures.update(figures)
        now = self._clock()
        if now - self._shown >= self._every:
            self._shown = now
            self._show(now)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._show(self._clock())
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _times(self, now: float) -> list[str]:
        elapsed = now - self._started
        rate = (self.done - self._from) / elapsed if elapsed > 0 else 0.0
        if self._closed or rate == 0.0:
            end = _duration(elapsed)
        else:
            end = f"{_duration(max(self.total - self.done, 0) / rate)} left"
        return [f"{rate:.3g}/s" if rate < 100 else f"{rate:,.0f}/s", end]

    def _text(self, now: float, bar: str) -> str:
        share = min(self.done / self.total, 1.0) if self.total > 0 else 1.0
        parts = [f"{self.title}:{bar} {self.done:,}/{self.total:,} ({share:.0%})", *self._times(now)]
        parts += [f"{name} {_figure(value)}" for name, value in self._figures.items()]
        return ", ".join(parts)

    def _bar(self) -> str:
        width = 20
        filled = width if self.total <= 0 else max(0, min(width, width * self.done // self.total))
        return f" [{'#' * filled}{' ' * (width - filled)}]"

    def _show(self, now: float) -> None:
        if self._terminal:
            # A line that wraps cannot be drawn over.
            columns = max(shutil.get_terminal_size().columns - 1, 20)
            self._stream.write("\r" + self._text(now, self._bar())[:columns].ljust(columns))
        else:
            self._stream.write(self._text(now, "") + "\n")
        self._stream.flush()
