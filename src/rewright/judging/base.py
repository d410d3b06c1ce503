"""What a judge is, what it returns, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rewright.core.records import Task, Trajectory

__all__ = ["AnswerJudge", "Judgement", "TrajectoryJudge", "lacking"]


class Judgement(msgspec.Struct, frozen=True):
    """How right one answer is: `outcome` in [0, 1], one line of reason, and the judge's other numbers."""

    outcome: float
    reason: str
    metrics: dict[str, float] = {}


class AnswerJudge(msgspec.Struct, frozen=True):
    """A judge of answers: `function(answer, golds)` compares a non-empty answer with one or more gold answers.

    A function that is registered as a judge without more is one of these. It never raises on any answer text.
    """

    function: Callable[[str, Sequence[str]], Judgement]
    gold_problem: Callable[[str], str | None] | None = None
    """Why a gold answer only equals what is written exactly like it, or None; for `rewright validate`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The keys of a task that it compares with."""
        return ("gold.answers",)

    @property
    def reads_answer(self) -> bool:
        """True: a trajectory without an answer is wrong without being judged."""
        return True

    def __call__(self, answer: str, golds: Sequence[str]) -> Judgement:
        """How right `answer` is."""
        return self.function(answer, golds)


class TrajectoryJudge(msgspec.Struct, frozen=True):
    """A judge of whole trajectories: `function(task, trajectory, answer)`; `answer` is "" where there is none."""

    function: Callable[[Task, Trajectory, str], Judgement]
    needs: tuple[str, ...] = ()
    """Keys of a task that must not be empty, such as "gold.outputs" or "metadata.entry"."""
    reads_answer: bool = True
    """Whether a trajectory without an answer is wrong without being judged."""
    self_contained: bool = False
    """Whether it runs nothing but its own code, so that it may be asked where a stored run is only read."""

    def __call__(self, task: Task, trajectory: Trajectory, answer: str) -> Judgement:
        """How right the trajectory is."""
        return self.function(task, trajectory, answer)


def lacking(task: Task, needs: Sequence[str]) -> str | None:
    """The first key of `needs` that the task does not have, or that is empty there; None where it has all."""
    return next((key for key in needs if not _value(task, key)), None)


def _value(task: Task, key: str) -> Any:
    value: Any = task
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value
