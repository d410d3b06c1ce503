"""Comparisons of ours on untrusted text, in a worker process that the kernel stops when they take too long."""

from __future__ import annotations

from typing import Any

from rewright.core.errors import JudgeError, WorkerError
from rewright.workers import pool

__all__ = ["compare"]


def compare(worker: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What `answer(**arguments)` of the module `worker` returns; outcome 0 with the reason where it fails.

    Raises `JudgeError` only where no worker can be started, or where it gets no processor time.
    """
    try:
        return pool.ask(worker, arguments)
    except pool.RequestError as problem:
        said = f"could not be compared: {problem}" if problem.cause == "raised" else f"comparing {problem}"
        return {"outcome": 0.0, "reason": said}
    except WorkerError as problem:
        raise JudgeError(f"a comparison failed: {problem}") from problem
