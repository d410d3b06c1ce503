"""Judge types (`AnswerJudge`, `TrajectoryJudge`) and their result type, `Judgement`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import msgspec

from rewright.core.records import Task, Trajectory

__all__ = ["AnswerJudge", "Judgement", "TrajectoryJudge", "how_to_give", "missing_key", "task_problem"]

_IMPORT_OPTIONS: Final = {"gold.answers": "--answer COLUMN or --gold FILE", "gold.calls": "--gold FILE"}
"""Options of `rewright import` that give a key of a task."""


class Judgement(msgspec.Struct, frozen=True):
    """Score of one answer: `outcome` in [0, 1], a one-line `reason`, and additional metrics."""

    outcome: float
    reason: str
    metrics: dict[str, float] = {}


class AnswerJudge(msgspec.Struct, frozen=True):
    """Judge of final answers: `function(answer, golds)` compares a non-empty answer with one or more gold answers.

    A plain function registered as a judge is wrapped in this class. `function` must not raise for any answer text.
    """

    function: Callable[[str, Sequence[str]], Judgement]
    gold_problem: Callable[[str], str | None] | None = None
    """Returns why a gold answer can only match verbatim, or None. Used by `rewright validate`."""
    extractor: str = "text"
    """The extractor that fits the judge: the part of an answer in prose that it compares."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Task keys that the judge requires."""
        return ("gold.answers",)

    @property
    def reads_answer(self) -> bool:
        """Always True: a trajectory without an answer scores 0 without calling the judge."""
        return True

    def __call__(self, answer: str, golds: Sequence[str]) -> Judgement:
        """Score `answer` against `golds`."""
        return self.function(answer, golds)


class TrajectoryJudge(msgspec.Struct, frozen=True):
    """Judge of whole trajectories: `function(task, trajectory, answer)`. `answer` is "" if there is none."""

    function: Callable[[Task, Trajectory, str], Judgement]
    needs: tuple[str, ...] = ()
    """Task keys that must not be empty, such as "gold.outputs" or "metadata.entry"."""
    reads_answer: bool = True
    """Whether a trajectory without an answer scores 0 without calling the judge."""
    self_contained: bool = False
    """Whether the judge needs no other package or process, so that it can be called when reading a stored run."""
    extractor: str = "text"
    """As for `AnswerJudge`."""
    needs_consent: bool = False
    """Whether the judge runs code that the task names. Then a task file must not name it, only the user's recipe."""
    scores: Callable[[Task, Trajectory], list[float | None] | None] | None = None
    """Returns the scores of the states before the first turn and after each, T + 1 numbers, for the credit signal
    `score`."""
    without_gold: Callable[[str], str | None] | None = None
    """Returns the part of a reason that says nothing of the ground truth, or None; a repairer may be shown it. `str`:
    reasons never say anything of it. None: they may, and a repairer is shown none of them."""
    states: Callable[[Task, Trajectory], list[Hashable]] | None = None
    """Returns the environment's own name of the state before each turn, T, for estimators with `state_key: own`."""
    problem: Callable[[Task], str | None] | None = None
    """Returns what is wrong with a task's own data that the judge reads, such as a malformed `metadata.compare`, or
    None. Such a task is refused before a run: it would be judged as wrong, whatever the model does."""

    def __call__(self, task: Task, trajectory: Trajectory, answer: str) -> Judgement:
        """Score the trajectory."""
        return self.function(task, trajectory, answer)


def missing_key(task: Task, needs: Sequence[str]) -> str | None:
    """Return the first key of `needs` that is missing or empty in the task, or None."""
    return next((key for key in needs if not _value(task, key)), None)


def task_problem(task: Task, judge: AnswerJudge | TrajectoryJudge) -> str | None:
    """Return why `judge`, the task's own, can't judge the task: a key that is missing or malformed. None: it can."""
    missing = missing_key(task, judge.needs)
    if missing is not None:
        return f"judge {task.judge} needs {missing}, and the task has none{how_to_give(task, missing)}"
    if isinstance(judge, AnswerJudge):
        empty = not any(gold.strip() for gold in task.gold.answers or ())
        return f"judge {task.judge} needs gold.answers, and those of the task are empty" if empty else None
    return None if judge.problem is None else judge.problem(task)


def how_to_give(task: Task, key: str) -> str:
    """Return how a task that was made from a log gets a missing key, to be appended to a message; else ""."""
    if task.source != "log" or key not in _IMPORT_OPTIONS:
        return ""
    return f": import the log again with {_IMPORT_OPTIONS[key]}"


def _value(task: Task, key: str) -> Any:
    value: Any = task
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value
