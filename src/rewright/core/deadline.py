"""Main-thread deadline using SIGALRM. Works for code that never yields."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rewright.core.errors import DeadlineError

__all__ = ["deadline"]


class _DeadlineReached(KeyboardInterrupt):
    """Raised by the alarm. A KeyboardInterrupt, so that no `except Exception` in the running code swallows it."""


@contextmanager
def deadline(what: str, seconds: float | None, *, setting: str) -> Iterator[None]:
    """Interrupt the block after `seconds`.

    Works in the main thread only. Uses the process's real-time alarm (SIGALRM).

    Args:
        what: name of the work, for the message.
        seconds: time limit; None: no deadline.
        setting: recipe key of the limit, for the message.

    Raises DeadlineError.
    """
    if seconds is None:
        yield
        return

    def on_alarm(number: int, frame: Any) -> None:
        raise _DeadlineReached

    previous_handler = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _DeadlineReached:
        raise DeadlineError(f"{what} did not finish within {seconds:g} s ({setting} in the recipe)") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
