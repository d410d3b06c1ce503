"""The work of an unguarded worker (`rewright.workers.pool`): import and call a judge of the user's own.

Whatever goes wrong in there is part of the reply: `input` is a mistake that the judge itself names, `raised` all else.
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
    """Import the judge, which is not among its seconds. A reply only where that fails."""

    def imported() -> None:
        load_function(path, "judge")

    return _reply(imported)


def answer(path: str, **seen: Any) -> dict[str, Any]:
    """What the judge says of an answer with its golds, or of a trajectory with its task."""

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
    except BaseException as problem:  # SystemExit too: a judge does not end its process by what an answer says
        return {"raised": f"{type(problem).__name__}: {problem}"}
