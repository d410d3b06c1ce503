"""Floor and ceiling of a benchmark: trajectories that do nothing, and that play the gold calls, judged as a model's.

The shares that a `Benchmark` states (`floor`, `ceiling`) are measured with `shares`, and the tests measure them again.
No model is loaded. `played` does not execute calls: it is for tasks whose judge reads calls and answers only, or
replays the calls itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rewright.benchmarks.scoring.scores import ALL
from rewright.core.records import StopReason, Task, ToolCall, Trajectory, Turn, label_of
from rewright.judging.base import AnswerJudge
from rewright.judging.judges import find_judge, judge_trajectory, uses_builtin_code
from rewright.tools.declared import declared_names

__all__ = ["measured", "nothing", "played", "shares"]


def nothing(task: Task) -> Trajectory:
    """A trajectory without calls and without an answer: one empty turn for every message of the user."""
    turns = (*(Turn("", follow_up=follow_up) for follow_up in task.follow_ups), Turn(""))
    return _trajectory(task, turns)


def played(task: Task) -> Trajectory:
    """A trajectory with the gold calls, and with the first gold answer: the gold calls are one turn.

    A task without gold calls and answers, in which some call is right, gets a call of its first tool.
    """
    gold = task.gold
    calls = gold.calls or ()
    if gold.calls is None and gold.answers is None and task.tools:
        calls = (ToolCall(task.tools[0].name, {}),)
    answer = gold.answers[0] if gold.answers else None
    return _trajectory(task, (Turn(answer or "", calls=tuple(calls)),), answer)


def _trajectory(task: Task, turns: tuple[Turn, ...], answer: str | None = None) -> Trajectory:
    declared = declared_names(task)
    called = any(call.name in declared for turn in turns for call in turn.calls)
    stop: StopReason = "answered" if answer is not None else "called" if called else "no_answer"
    return Trajectory(
        id=f"{task.id}/bound", task_id=task.id, stage="eval", index=0, turns=turns, stop_reason=stop, answer=answer
    )


def shares(tasks: Iterable[Task], play: Callable[[Task], Trajectory]) -> dict[str, float]:
    """Return the share of right tasks per category (`metadata.category`) and for `all`, with the tasks' own judges.

    A category that is named `all` has no share of its own.

    Raises what `judge_trajectory` raises.
    """
    outcomes: dict[str, list[bool]] = {}
    for task in tasks:
        right = judge_trajectory(task, play(task)).correct
        outcomes.setdefault(ALL, []).append(right)
        category = label_of(task.metadata, "category")
        if category not in {"", ALL}:
            outcomes.setdefault(category, []).append(right)
    return {name: sum(rights) / len(rights) for name, rights in outcomes.items()}


def measured(tasks: Sequence[Task]) -> tuple[dict[str, float], dict[str, float]] | None:
    """Return the floor and the ceiling of questions, measured on these tasks; None unless all are judged by answers.

    Only for Rewright's own judges of answers, which are quick and run no other code.
    """
    judges = {task.judge for task in tasks}
    if not tasks or not all(uses_builtin_code(task) and task.gold.answers for task in tasks):
        return None
    if not all(isinstance(find_judge(judge), AnswerJudge) for judge in judges):
        return None
    return shares(tasks, nothing), shares(tasks, played)
