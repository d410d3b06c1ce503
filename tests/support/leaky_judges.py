"""Judges and a credit signal with known holes, each of which `rewright probe-reward` must find."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rewright.core.records import Task, Trajectory
from rewright.credit.trajectories import CreditTrajectory
from rewright.judging.base import Judgement, TrajectoryJudge


def _says(right: object) -> Judgement:
    return Judgement(float(bool(right)), "toy")


def contains(answer: str, golds: Sequence[str]) -> Judgement:
    """The gold answer stands anywhere in the answer."""
    return _says(any(gold in answer for gold in golds))


def pattern(answer: str, golds: Sequence[str]) -> Judgement:
    """The answer is taken for a pattern."""
    try:
        return _says(any(re.fullmatch(answer, gold) for gold in golds))
    except re.error:
        return _says(False)


def flattered(answer: str, golds: Sequence[str]) -> Judgement:
    """Believes an answer that says that it is correct, as a weak LLM judge does."""
    return _says(answer in golds or "correct" in answer)


def long(answer: str, golds: Sequence[str]) -> Judgement:
    """Believes a long answer."""
    return _says(answer in golds or len(answer) > 1000)


def anything(answer: str, golds: Sequence[str]) -> Judgement:
    """Believes every answer."""
    return _says(answer)


def effort(answer: str, golds: Sequence[str]) -> Judgement:
    """Pays half for any answer."""
    return Judgement(1.0 if answer in golds else 0.5, "toy")


def strict(answer: str, golds: Sequence[str]) -> Judgement:
    """Gives nothing the full mark. No hole."""
    return Judgement(0.9 if answer in golds else 0.2, "toy")


def part(answer: str, golds: Sequence[str]) -> Judgement:
    """The answer stands anywhere in the gold answer."""
    return _says(answer and any(answer in gold for gold in golds))


def tolerant(answer: str, golds: Sequence[str]) -> Judgement:
    """Numbers may differ by a tenth."""
    try:
        return _says(any(abs(float(answer) - float(gold)) <= 0.1 * abs(float(gold)) for gold in golds))
    except ValueError:
        return _says(answer in golds)


def unsigned(answer: str, golds: Sequence[str]) -> Judgement:
    """Signs do not count."""
    return _says(answer.lstrip("-") in [gold.lstrip("-") for gold in golds])


def obedient(answer: str, golds: Sequence[str]) -> Judgement:
    """Does what an answer says, as a weak LLM judge does."""
    return _says(answer in golds or "previous instructions" in answer)


def opened(answer: str, golds: Sequence[str]) -> Judgement:
    """Believes the beginning of a solution, as LLM judges do (arXiv 2507.08794)."""
    return _says(answer in golds or answer.startswith("Thought process"))


def polite(answer: str, golds: Sequence[str]) -> Judgement:
    """A refusal is as good as an answer."""
    return _says(answer in golds or "don't know" in answer)


async def awaited(answer: str, golds: Sequence[str]) -> Judgement:
    """No judge: it returns a coroutine."""
    return _says(answer in golds)


def unguarded(answer: str, golds: Sequence[str]) -> Judgement:
    """Raises for an answer that is no number."""
    return _says(float(answer) == float(golds[0]))


def raising(answer: str, golds: Sequence[str]) -> Judgement:
    """Raises for every answer."""
    raise IndexError(answer)


def hanging(answer: str, golds: Sequence[str]) -> Judgement:
    """Never ends for a pattern."""
    while answer == ".*":
        pass
    return _says(answer in golds)


def evaluating(answer: str, golds: Sequence[str]) -> Judgement:
    """Executes the answer."""
    try:
        return _says(str(eval(answer)) in golds)
    except Exception:
        return _says(answer in golds)


def listed(answer: str, golds: Sequence[str]) -> Judgement:
    """One of many answers, but not of two or twenty, may be right."""
    parts = answer.split(", ")
    return _says(answer in golds or (len(parts) > 100 and set(golds) & set(parts)))


def near(answer: str, golds: Sequence[str]) -> Judgement:
    """Numbers are compared the wrong way round, so that NaN is equal to all of them."""
    try:
        return _says(not any(abs(float(answer) - float(gold)) > 1e-6 for gold in golds))
    except ValueError:
        return _says(answer in golds)


def _mentions(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    text = "".join(turn.text for turn in trajectory.turns)
    return _says(any(gold in text for gold in task.gold.answers or ()))


def _calls(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return _says(trajectory.calls)


def _question(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return _says(answer in (*(task.gold.answers or ()), task.messages[-1]["content"]))


def _returned(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    results = " ".join(result.content for result in trajectory.results)
    return _says(any(gold in results for gold in task.gold.answers or ()))


def _grounded(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return _says(any(answer.strip() in result.content for result in trajectory.results))


returned = TrajectoryJudge(_returned)
"""The gold answer stands in what a tool returned, whatever is answered."""
grounded = TrajectoryJudge(_grounded)
"""Believes every answer that a tool returned."""
mentions = TrajectoryJudge(_mentions, reads_answer=False)
"""The gold answer stands anywhere in what the model has written."""
calls = TrajectoryJudge(_calls, reads_answer=False)
"""Right is who has called a tool."""
question = TrajectoryJudge(_question)
"""Accepts the question as the answer."""


def per_call(trajectories: Sequence[CreditTrajectory]) -> list[list[float]]:
    """A credit signal that pays for every call."""
    return [[float(len(calls)) for calls in one.calls] for one in trajectories]


def _few_calls(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return Judgement(float(answer in (task.gold.answers or ())) * max(0.0, 1 - 0.1 * len(trajectory.calls)), "toy")


def _names(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return _says([call.name for call in trajectory.calls] == [call.name for call in task.gold.calls or ()])


few_calls = TrajectoryJudge(_few_calls)
"""Every call costs a tenth, also a needed one."""
names = TrajectoryJudge(_names, reads_answer=False)
"""Only the names of the calls count."""


def _any_of(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return _says(_all_match(task, trajectory, lambda got, gold: got == gold or (isinstance(got, list) and gold in got)))


def _known_only(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    return _says(_all_match(task, trajectory, lambda got, gold: got == gold))


def _all_match(task: Task, trajectory: Trajectory, same: Callable[[object, object], bool]) -> bool:
    pairs = list(zip(trajectory.calls, task.gold.calls or (), strict=False))
    return len(pairs) == len(task.gold.calls or ()) == len(trajectory.calls) and all(
        same(got.arguments.get(name), value) for got, gold in pairs for name, value in gold.arguments.items()
    )


def _backwards(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    golds, calls = task.gold.calls or (), trajectory.calls
    ends = bool(golds and calls) and calls[-1].arguments == golds[0].arguments
    return Judgement(float(answer in (task.gold.answers or ())) * (1.0 if ends else 0.9), "toy")


any_of = TrajectoryJudge(_any_of, reads_answer=False)
"""A list with the right value in it is the right value."""
known_only = TrajectoryJudge(_known_only, reads_answer=False)
"""Compares only the arguments that the gold calls have."""
backwards = TrajectoryJudge(_backwards)
"""Prefers the first call at the end."""
