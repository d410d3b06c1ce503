"""Run built-in comparisons of untrusted text in a worker process with CPU and memory limits."""

from __future__ import annotations

from typing import Any

from rewright.core.errors import JudgeError, WorkerError
from rewright.workers import pool

__all__ = ["compare"]


def compare(worker: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call `answer(**arguments)` of the module `worker` and return its result; outcome 0 with a reason if it fails.

    Raises `JudgeError` if no worker can be started or the worker gets no CPU time.
    """
    try:
        return pool.call_guarded(worker, arguments)
    except pool.RequestError as problem:
        reason = f"could not be compared: {problem}" if problem.cause == "raised" else f"comparing {problem}"
        return {"outcome": 0.0, "reason": reason}
    except WorkerError as problem:
        raise JudgeError(f"a comparison failed: {problem}") from problem
