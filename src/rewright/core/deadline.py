"""A deadline for whatever runs in the main thread, as an alarm of the kernel: it needs nobody's cooperation."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rewright.core.errors import DeadlineError

__all__ = ["deadline"]


class _Over(KeyboardInterrupt):
    """Ends what runs exactly as Ctrl-C does: nothing takes it for a failure of its own and goes on."""


@contextmanager
def deadline(what: str, seconds: float | None, *, setting: str) -> Iterator[None]:
    """Stop the block after `seconds` with a DeadlineError that names the `setting`. None: no deadline.

    Main thread only. Uses the process's real-time alarm (SIGALRM).
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
