"""Main-thread deadline using SIGALRM. Works for code that never yields."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rewright.core.errors import DeadlineError

__all__ = ["deadline"]


class _Over(KeyboardInterrupt):
    """Raised by the alarm. A KeyboardInterrupt, so that no `except Exception` in the running code swallows it."""


@contextmanager
def deadline(what: str, seconds: float | None, *, setting: str) -> Iterator[None]:
    """Interrupt the block after `seconds` (None: no deadline).

    Main thread only. Uses the process's real-time alarm (SIGALRM). `what` names the work and `setting` the recipe key
    in the message. Raises DeadlineError.
    """
    if seconds is None:
        yield
        return

    def over(number: int, frame: Any) -> None:
        raise _Over

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Over:
        raise DeadlineError(f"{what} did not finish within {seconds:g} s ({setting} in the recipe)") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
