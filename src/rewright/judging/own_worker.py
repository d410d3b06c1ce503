"""Unguarded worker (`rewright.workers.pool`) that imports and calls a user-defined judge.

Errors are part of the reply: `input` is an `InputError` raised by the judge, `raised` any other exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rewright.core.errors import InputError
from rewright.core.import_paths import load_function
from rewright.core.records import Task, Trajectory
from rewright.judging.base import AnswerJudge, Judgement, TrajectoryJudge

__all__ = ["answer", "prepare"]


def prepare(path: str, **_: Any) -> dict[str, Any] | None:
    """Import the judge before its time limit starts. Returns a reply only if the import fails."""

    def imported() -> None:
        load_function(path, "judge")

    return _reply(imported)


def answer(path: str, **seen: Any) -> dict[str, Any]:
    """Call the judge on an answer and its golds, or on a task and its trajectory."""

    def judged() -> dict[str, Any]:
        found: Any = load_function(path, "judge")
        function: Any = found.function if isinstance(found, AnswerJudge | TrajectoryJudge) else found
        if "trajectory" in seen:
            task = msgspec.convert(seen["task"], Task)
            judgement = function(task, msgspec.convert(seen["trajectory"], Trajectory), seen["answer"])
        else:
            judgement = function(seen["answer"], seen["golds"])
        if not isinstance(judgement, Judgement):
            return {"raised": f"it returned {judgement!r:.80}, expected a rewright.judging.Judgement"}
        metrics = {str(name): float(value) for name, value in judgement.metrics.items()}
        return {"outcome": float(judgement.outcome), "reason": str(judgement.reason), "metrics": metrics}

    return _reply(judged) or {}


def _reply(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        return work()
    except InputError as problem:
        return {"input": str(problem)}
    except BaseException as problem:  # includes SystemExit, so that an answer can't make the judge end the worker
        return {"raised": f"{type(problem).__name__}: {problem}"}
