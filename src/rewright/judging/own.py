"""Run judges from other packages in a separate process with a wall-clock limit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rewright.core.answer_text import shown
from rewright.core.errors import InputError, JudgeError, WorkerError
from rewright.core.import_paths import load_object
from rewright.core.records import Task, Trajectory
from rewright.judging.base import AnswerJudge, Judgement, TrajectoryJudge
from rewright.workers import pool

__all__ = ["DEFAULT_JUDGE_SECONDS", "import_path_of", "in_separate_process"]

DEFAULT_JUDGE_SECONDS = 60.0
"""Default time limit in seconds of a user-defined judge for one answer."""
WORKER = "rewright.judging.own_worker"


def import_path_of(function: Callable[..., Any]) -> str | None:
    """Return the import path of a function, or None if it has none (a lambda, a closure)."""
    path = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        return path if load_object(path, "judge") is function else None
    except InputError:
        return None


def in_separate_process(
    judge: AnswerJudge | TrajectoryJudge, path: str, seconds: float
) -> AnswerJudge | TrajectoryJudge:
    """Return a judge that calls the function at the import path `path` in a separate process.

    A function that another process can't import, such as one of a notebook, runs in this process without a limit.
    Importing the module does not count towards `seconds`. The judge raises `JudgeError` if the function raises,
    returns no `Judgement`, exceeds the limit or ends its process. An `InputError` of the function is passed on.
    """
    if isinstance(judge, AnswerJudge):
        on_plain_answer = judge.function

        def on_answer(answer: str, golds: Sequence[str]) -> Judgement:
            if not _has_a_file(path):
                return _checked(on_plain_answer(answer, golds), path)
            return _ask(path, seconds, answer, {"answer": answer, "golds": list(golds)})

        return msgspec.structs.replace(judge, function=on_answer)
    on_plain_trajectory = judge.function

    def on_trajectory(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
        if not _has_a_file(path):
            return _checked(on_plain_trajectory(task, trajectory, answer), path)
        arguments = {"task": msgspec.to_builtins(task), "trajectory": msgspec.to_builtins(trajectory), "answer": answer}
        return _ask(path, seconds, answer, arguments)

    return msgspec.structs.replace(judge, function=on_trajectory)


def _checked(result: Any, path: str) -> Judgement:
    if not isinstance(result, Judgement):
        raise JudgeError(f"judge {path!r} returned {result!r:.80}: expected a rewright.judging.Judgement")
    return result


def _ask(path: str, seconds: float, answer: str, arguments: dict[str, Any]) -> Judgement:
    try:
        reply = pool.call_unguarded(WORKER, {"path": path, **arguments}, seconds)
    except pool.RequestError as problem:
        reply = {"raised": str(problem)}
    except WorkerError as problem:
        raise JudgeError(f"judge {path!r}: {problem}") from problem
    if "input" in reply:
        raise InputError(str(reply["input"]))
    if "raised" in reply:
        raise JudgeError(f"judge {path!r} failed on {shown(answer)}: {reply['raised']}")
    return Judgement(**reply)


def _has_a_file(path: str) -> bool:
    """Return True if another process can import the module of an import path."""
    module = path.partition(":")[0]
    try:
        spec = None if module == "__main__" else importlib.util.find_spec(module)
    except ValueError:  # a module without `__spec__`, such as one created at run time
        return False
    return spec is not None and spec.has_location
