"""Unguarded worker (`rewright.workers.pool`) that imports and calls a user-defined judge.

Errors are part of the reply: `input` is an `InputError` raised by the judge, `raised` any other exception.
"""

from __future__ import annotations

import inspect
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

    def import_judge() -> None:
        load_function(path, "judge")

    return _reply(import_judge)


def answer(path: str, **arguments: Any) -> dict[str, Any]:
    """Call the judge on an answer and its golds, or on a task and its trajectory."""

    def run_judge() -> dict[str, Any]:
        judge: Any = load_function(path, "judge")
        function: Any = judge.function if isinstance(judge, AnswerJudge | TrajectoryJudge) else judge
        if "trajectory" in arguments:
            task = msgspec.convert(arguments["task"], Task)
            judgement = function(task, msgspec.convert(arguments["trajectory"], Trajectory), arguments["answer"])
        else:
            judgement = function(arguments["answer"], arguments["golds"])
        if inspect.iscoroutine(judgement):
            judgement.close()  # else Python warns that it was never awaited
            return {"raised": "it is an async function: expected a plain one"}
        if not isinstance(judgement, Judgement):
            return {"raised": f"it returned {judgement!r:.80}: expected a rewright.judging.Judgement"}
        metrics = {str(name): float(value) for name, value in judgement.metrics.items()}
        return {"outcome": float(judgement.outcome), "reason": str(judgement.reason), "metrics": metrics}

    return _reply(run_judge) or {}


def _reply(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        return work()
    except InputError as problem:
        return {"input": str(problem)}
    except BaseException as problem:  # includes SystemExit, so that an answer can't make the judge end the worker
        return {"raised": f"{type(problem).__name__}: {problem}"}
