"""Progress on standard error: a bar with counts and rates on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.errors import LiveError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar", "format_counts", "forward", "hidden_bars", "say"]

console = Console(stderr=True, highlight=False, soft_wrap=True)
LINE_SECONDS = 10.0
"""Minimum time between two progress lines without a terminal."""
_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden_bars(hidden: bool = True) -> Iterator[None]:
    """Show no progress bars while the block runs. Warnings and notes are shown."""
    token = _hidden.set(hidden)
    try:
        yield
    finally:
        _hidden.reset(token)


_receiver: Callable[..., None] | None = None


def forward(receiver: Callable[..., None] | None) -> None:
    """Pass the notices and the progress of this process to `receiver` instead of showing them; None: show them again.

    It is called with `("say", text)`, `("bar", label, total, done)`, `("step", count, detail)` and
    `("bar_end", failed)`. The process that shows them repeats the calls on a `Bar` of its own.
    """
    global _receiver  # noqa: PLW0603 - one per process, as standard error is
    _receiver = receiver


def say(text: str) -> None:
    """Print one line to standard error. Does nothing if the terminal is closed."""
    if _receiver is not None:
        _receiver("say", text)
        return
    with suppress(OSError):
        console.print(text, markup=False)


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts as "name count, …", the largest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


class Bar:
    """Progress bar with a rate: `with Bar("rollouts", total) as bar: bar.step(detail="…")`.

    `done`: items that were finished before, by an interrupted run; they do not count for the rate. `brief`: without a
    terminal nothing is said unless it takes `LINE_SECONDS`, for what is repeated often, inside of another bar; it is
    not forwarded. Nothing is said about no items.
    """

    def __init__(self, label: str, total: int, *, done: int = 0, brief: bool = False) -> None:
        self.label, self.total, self.done = label, total, done
        self._brief = brief
        self._started = self._shown = time.monotonic()
        self._before = done
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if _receiver is not None:
            if not self._brief:
                _receiver("bar", self.label, self.total, self.done)
        elif sys.stderr.isatty() and not _hidden.get():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
                console=console,
                transient=True,
            )
            try:
                self._progress.start()
            except LiveError:  # rich < 14.1, and another coroutine shows a bar already
                self._progress = None
                return self
            self._task = self._progress.add_task(self.label, total=self.total, completed=self.done, detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _receiver is not None:
            if not self._brief:
                _receiver("bar_end", error is not None)
            return
        if self._progress is not None:
            self._progress.stop()
        seconds = time.monotonic() - self._started
        count = self.done - self._before
        if _hidden.get() or not (self.total or self.done) or (error is not None and not count):
            return  # (no item was processed: the error message is enough)
        if self._brief and seconds < LINE_SECONDS:
            return
        say(f"{self.label}: {self.done}/{self.total} in {seconds:.1f} s ({count / max(seconds, 1e-9):.1f}/s)")

    def step(self, count: int = 1, detail: str = "") -> None:
        """Advance by `count` items. `detail` is shown behind the counts."""
        self.done += count
        if _receiver is not None:
            if not self._brief:
                _receiver("step", count, detail)
            return
        if self._progress is not None:
            self._progress.update(self._task, completed=self.done, total=self.total, detail=detail)
        elif time.monotonic() - self._shown > LINE_SECONDS and not _hidden.get():
            self._shown = time.monotonic()
            rate = (self.done - self._before) / (self._shown - self._started)
            say(f"{self.label}: {self.done}/{self.total} ({rate:.1f}/s) {detail}".rstrip())
