"""Judges that are given to a function of the API: names, import paths, and functions of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec

from rewright.core.errors import InputError, JudgeError
from rewright.core.records import Task, Trajectory
from rewright.core.registry import temporary
from rewright.judging.base import AnswerJudge, Judgement, TrajectoryJudge
from rewright.judging.judges import check_judge

__all__ = ["JudgeLike", "judged_by"]

JudgeLike: TypeAlias = str | Callable[[str, Sequence[str]], Any] | AnswerJudge | TrajectoryJudge
"""A registered name, an import path, a function `(answer, golds)`, or a judge of whole trajectories."""


@contextmanager
def judged_by(tasks: Sequence[Task], judge: JudgeLike | None) -> Iterator[Sequence[Task]]:
    """Yield the tasks with `judge` as their judge while the block runs; None leaves them as they are.

    The program that gives a judge consents to running it. Raises InputError for what is no judge.
    """
    if judge is None:
        yield tasks
    elif isinstance(judge, str):
        check_judge(judge, [judge])
        yield [msgspec.structs.replace(task, judge=judge) for task in tasks]
    else:
        with temporary("judge", _in_process(judge)) as name:
            yield [msgspec.structs.replace(task, judge=name) for task in tasks]


def _in_process(judge: Any) -> AnswerJudge | TrajectoryJudge:
    """Return a judge that calls a function of this program, which may return a number in the place of a `Judgement`."""
    if isinstance(judge, TrajectoryJudge):
        inspect = judge.function

        def on_trajectory(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
            return _judgement(inspect(task, trajectory, answer), inspect)

        return msgspec.structs.replace(judge, function=on_trajectory)
    compare: Any = judge.function if isinstance(judge, AnswerJudge) else judge
    if not callable(compare):
        raise InputError(f"judge is a {type(judge).__name__}: expected a name, or a function of answer and golds")

    def on_answer(answer: str, golds: Sequence[str]) -> Judgement:
        return _judgement(compare(answer, golds), compare)

    return AnswerJudge(on_answer)


def _judgement(found: Any, function: Any) -> Judgement:
    name = getattr(function, "__name__", type(function).__name__)
    if isinstance(found, Judgement):
        return found
    if isinstance(found, int | float):
        return Judgement(float(found), f"{name} returned {found}")
    raise JudgeError(f"judge {name} returned {found!r:.80}, expected a number between 0 and 1")
